"""A random checkpoint of a published shape, made where the benchmark runs, with a tokenizer whose ids it has."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.models.tiny import TOKENIZER_FILES
from component.models.tiny_tokenizer import build_tokenizer, read_texts
from component.runtime.environment import REPOSITORY

TEXTS = REPOSITORY / "data/demo/pretrain.jsonl"
#: Of the tokenizer that is trained here; the model's vocabulary is that of its shape.
VOCABULARY = 1024
#: As Llama 3.1 has them. Unsloth stretches positions for longer rows, which --context_tokens can ask for.
MAX_POSITIONS = 2**17


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint is there; its tokenizer is written last."""
    return (folder / "tokenizer.json").is_file()


def write_checkpoint(folder: Path, sizes: Mapping[str, Any], tokenizer: Path | None = None) -> None:
    """Write random weights, on the GPU where there is one, in bf16 there and for large models; otherwise in float32.

    Args:
        sizes: as config.json has them, `model_type` among them.
        tokenizer: a folder whose tokenizer is copied; None trains one on the demo's texts.

    Raises:
        UserError: the tokenizer has more tokens than the model.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

    keys = {"max_position_embeddings": MAX_POSITIONS, **sizes}
    config = CONFIG_MAPPING[keys.pop("model_type")](**keys)
    if tokenizer is None:
        built = build_tokenizer(read_texts([TEXTS]), vocab_size=VOCABULARY, model_max_length=MAX_POSITIONS)
    else:
        built = AutoTokenizer.from_pretrained(tokenizer)
    if len(built) > config.vocab_size:
        raise UserError(
            f"--tokenizer: {tokenizer} has {len(built)} tokens, and the model {config.vocab_size}; use another"
        )
    for name in ("bos", "eos", "pad"):
        setattr(config, f"{name}_token_id", getattr(built, f"{name}_token_id"))
    on_gpu = torch.cuda.is_available()
    is_large = config.hidden_size >= 1024
    torch.manual_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if on_gpu or is_large else torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if tokenizer is None:
        built.save_pretrained(folder)
        return
    for name in sorted(TOKENIZER_FILES, key=lambda name: name == "tokenizer.json"):
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
