"""Models for answering: base models, full run folders and adapters on their base, and greedy generation in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.models.attention import softcap_obstacle
from component.models.checkpoint import load_config, load_weights
from component.models.model_files import ModelSource, find_source, has_file, read_source_config
from component.models.quantization import (
    build_4bit_config,
    build_8bit_config,
    prepare_four_bit_layers,
    unquantized_parts,
)
from component.models.rope import scale_rope
from component.models.saved_adapters import load_adapter
from component.models.tokenizer import read_tokenizer, set_pad_token

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

RUN_SETTINGS_FILE = "train_args.yaml"


def load_for_inference(name: str, *, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer for generation.

    The base of an adapter from a qlora run is quantized as in that run, for that is the base the adapter fits.

    Args:
        name: hub id or folder of a model, an adapter or a run.
        device: by torch's name, such as "cuda:0" or "cpu".

    Raises:
        UserError: it is missing, unreachable or no model.
    """
    import torch

    source = find_source(name)
    dtype = _dtype(device)
    quantization = run_quantization(source, dtype)
    config = load_config(source, trust_remote_code=False)
    if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise UserError(f"--model {name}: is a reward model, which scores answers and writes none; name its start")
    if source.adapter is not None:
        scale_rope(config, read_run_settings(source.adapter).get("rope_scaling") or {})
    model, _ = load_weights(
        source,
        config,
        dtype=getattr(torch, dtype),
        device_map={"": device},
        attn_implementation="eager" if softcap_obstacle(config) else None,
        **({} if quantization is None else {"quantization_config": quantization}),
    )
    prepare_four_bit_layers(model, compute_dtype=dtype)
    if source.adapter is not None:
        model, _ = load_adapter(model, source, is_trainable=False)
    model.eval()
    return model, load_own_tokenizer(source)


def generate_answers(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_token_ids: Sequence[int],
    pad_token_id: int,
) -> list[list[int]]:
    """Continue prompts greedily, as one left-padded batch.

    The model's mode (training or not) is as before afterwards.

    Args:
        prompt_ids: token ids of each prompt, of unequal lengths.
        stop_token_ids: any of these ends an answer.
        pad_token_id: fills the batch; its value has no effect.

    Returns:
        New token ids of each prompt, without the stop token and what follows it.
    """
    import torch
    from transformers import GenerationConfig

    from component.models.host_weights import device_of

    longest = max(len(ids) for ids in prompt_ids)
    padding = [longest - len(ids) for ids in prompt_ids]
    device = device_of(model)
    input_ids = [[pad_token_id] * pad + list(ids) for pad, ids in zip(padding, prompt_ids, strict=True)]
    mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(stop_token_ids),
        pad_token_id=pad_token_id,
    )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor(input_ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=settings,
            )
    finally:
        model.train(was_training)
    return [_until_stop(row[longest:].tolist(), stop_token_ids) for row in output]


def _until_stop(ids: list[int], stop_token_ids: Sequence[int]) -> list[int]:
    end = next((index for index, token in enumerate(ids) if token in stop_token_ids), len(ids))
    return ids[:end]


def _dtype(device: str) -> str:
    import torch

    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def run_quantization(source: ModelSource, dtype: str) -> BitsAndBytesConfig | None:
    """The quantized base that the run of a local adapter folder trained on; None where it says nothing of one.

    A base whose files are quantized already needs no settings: None.
    """
    settings = read_run_settings(source.adapter) if source.adapter else {}
    config = read_source_config(source)
    if settings.get("train_mode") != "qlora" or config.get("quantization_config"):
        return None
    if settings.get("quantization") == "int8":
        return build_8bit_config(unquantized=unquantized_parts(config))
    return build_4bit_config(
        quant_type=settings.get("bnb_4bit_quant_type", "nf4"),
        use_double_quant=settings.get("bnb_4bit_use_double_quant", True),
        compute_dtype=dtype,
        unquantized=unquantized_parts(config),
    )


def read_run_settings(name: str) -> dict[str, Any]:
    """The merged config of the run that a folder, or the one around it, holds; empty where there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = find_run_settings(name)
    if file is None:
        return {}
    import yaml

    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--model {name}: {file} cannot be read: {reason}; mend the file") from error
    if not isinstance(settings, dict):
        raise UserError(f"--model {name}: {file} holds no keys and values; mend the file")
    return settings


def find_run_settings(name: str) -> Path | None:
    """The file of that config; None where there is none."""
    folder = Path(name)
    # A checkpoint lies inside its run folder.
    files = (folder / RUN_SETTINGS_FILE, folder.parent / RUN_SETTINGS_FILE)
    return next((file for file in files if file.is_file()), None)


def load_own_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer of an adapter or run folder that has one, else that of its base; with a pad token."""
    name, revision = source.base, source.base_revision
    if source.adapter and has_file(source.adapter, "tokenizer_config.json", revision=source.adapter_revision):
        name, revision = source.adapter, source.adapter_revision
    tokenizer = read_tokenizer(name, revision=revision)
    set_pad_token(tokenizer)
    return tokenizer
