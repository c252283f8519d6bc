"""Small models made from nothing: random weights, with a tokenizer of their own or a given one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from component.config.errors import DeviceMemoryError, UserError
from component.models.failures import first_line
from component.models.tiny_families import TINY_FAMILIES, build_family_config, build_family_model
from component.models.tiny_tokenizer import build_tokenizer, read_texts
from component.models.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-architecture model, with the names of its config.json.

    `initializer_range` is near 1/sqrt(hidden_size): with the usual 0.02 the attention of so small a model starts out
    uniform and takes many times as long to learn anything.
    """

    vocab_size: int = 1024
    hidden_size: int = 128
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    initializer_range: float = 0.08
    tie_word_embeddings: bool = True


SHAPES = {
    "tiny": Shape(),
    "llama3-8b": Shape(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        initializer_range=0.02,
        tie_word_embeddings=False,
    ),
}

#: What can be made; a Llama of any shape, the others in one size each.
ARCHITECTURES = tuple(TINY_FAMILIES)


def check_shape(shape: Shape) -> None:
    """Refuse sizes that do not make a model.

    Raises:
        UserError: naming the sizes and what would fit.
    """
    heads, key_value_heads = shape.num_attention_heads, shape.num_key_value_heads
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                 "num_key_value_heads"):  # fmt: skip
        if getattr(shape, name) < 1:
            raise UserError(f"{name}: got {getattr(shape, name)}; use a positive number")
    if shape.hidden_size % heads or (shape.hidden_size // heads) % 2:
        raise UserError(f"hidden_size: {shape.hidden_size} over {heads} heads; each head needs a whole, even width")
    if heads % key_value_heads:
        raise UserError(f"num_key_value_heads: got {key_value_heads}; use a divisor of num_attention_heads, {heads}")


def check_family(model_type: str, shape: Shape) -> None:
    """Refuse sizes for a family that is made in one size.

    Raises:
        UserError: naming the first of them.
    """
    changed = [name for name, value in vars(Shape()).items() if getattr(shape, name) != value and name != "vocab_size"]
    if model_type != "llama" and changed:
        raise UserError(f"{changed[0]}: {model_type} is made in one tiny size; leave it out, or make a llama")


def build_model(shape: Shape, *, seed: int, token_ids: dict[str, int | None]) -> LlamaForCausalLM:
    """Build a randomly initialised Llama: a large one in bf16, on the GPU when there is one, a small one in fp32.

    Args:
        shape: its sizes.
        seed: the same seed gives the same weights on the same kind of device.
        token_ids: bos_token_id, eos_token_id and pad_token_id for its config.

    Raises:
        DeviceMemoryError: no memory for its sizes.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=shape.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        initializer_range=shape.initializer_range,
        tie_word_embeddings=shape.tie_word_embeddings,
        **token_ids,
    )
    is_large = shape.hidden_size >= 2048
    device = "cuda" if is_large and torch.cuda.is_available() else "cpu"
    config.dtype = torch.bfloat16 if is_large else torch.float32
    with torch.random.fork_rng(devices=["cuda"] if device == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        try:
            return LlamaForCausalLM._from_config(config, dtype=config.dtype)
        except (RuntimeError, OverflowError, MemoryError) as error:
            raise DeviceMemoryError(
                f"the model cannot be made on the {device}: {first_line(error)}; use smaller sizes"
            ) from error


def make_tiny_model(
    output: Path, *, shape: Shape, seed: int, texts: Sequence[Path] = (), tokenizer: Path | None = None,
    pad_is_eos: bool = False, model_type: str = "llama",
) -> dict[str, int]:  # fmt: skip
    """Write a model folder: tokenizer, config and random weights.

    Args:
        output: the folder to write, new or empty.
        shape: sizes of a Llama, of another family the vocabulary alone; with `texts`, its vocab_size shrinks to the
            tokens that they give.
        seed: seed of the weights.
        texts: files to train a tokenizer on; needed when `tokenizer` is None.
        tokenizer: a folder whose tokenizer files are copied as they are.
        pad_is_eos: see `build_tokenizer`.
        model_type: the family, one of ARCHITECTURES.

    Returns:
        `num_parameters` and `vocab_size`.

    Raises:
        UserError: impossible sizes, sizes for another family than Llama, neither or both of texts and tokenizer, a
            tokenizer larger than the vocabulary, or an output that is a file or a folder with content.
        DeviceMemoryError: no memory for so large a model.
    """
    from transformers import GenerationConfig

    check_shape(shape)
    check_family(model_type, shape)
    if bool(texts) == (tokenizer is not None):
        raise UserError("name either texts to train a tokenizer on or a tokenizer folder to copy, and not both")
    check_output(output)
    if tokenizer is None:
        built = build_tokenizer(
            read_texts(texts),
            vocab_size=shape.vocab_size,
            model_max_length=shape.max_position_embeddings,
            pad_is_eos=pad_is_eos,
        )
        shape = replace(shape, vocab_size=len(built))
    else:
        built = read_tokenizer(str(tokenizer))
        if len(built) > shape.vocab_size:
            raise UserError(f"vocab_size: got {shape.vocab_size}; the tokenizer at {tokenizer} has {len(built)} tokens")
    token_ids = {f"{name}_token_id": getattr(built, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if model_type == "llama":
        model = build_model(shape, seed=seed, token_ids=token_ids)
    else:
        config = build_family_config(model_type, vocab_size=shape.vocab_size, token_ids=token_ids)
        model = build_family_model(config, seed=seed)
    model.generation_config = GenerationConfig(**token_ids)
    output.mkdir(parents=True, exist_ok=True)
    if tokenizer is None:
        built.save_pretrained(output)
    else:
        copy_tokenizer(tokenizer, output)
    model.save_pretrained(output)
    return {"num_parameters": model.num_parameters(), "vocab_size": shape.vocab_size}


def check_output(output: Path) -> None:
    """Refuse to write into a folder that holds something, a finished run perhaps.

    Raises:
        UserError: it does, or is a file.
    """
    if output.is_dir():
        if any(output.iterdir()):
            raise UserError(f"output: {output} is not empty; name a new folder, or remove this one")
    elif output.exists():
        raise UserError(f"output: {output} is a file; name a new folder")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files of a folder.

    Raises:
        UserError: the folder has none.
    """
    names = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not names:
        raise UserError(f"tokenizer: no tokenizer files in {source.absolute()}; name a folder with tokenizer.json")
    for name in names:
        shutil.copyfile(source / name, target / name)
