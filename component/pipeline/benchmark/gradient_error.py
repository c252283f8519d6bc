"""One step of an adapter through the real training loop, and how far its gradients are from those of a reference."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.load import load_config
from component.pipeline.benchmark.locked_file import write_if_changed
from component.pipeline.prepare import prepare

if TYPE_CHECKING:
    from torch import Tensor, nn

#: An adapter starts with a second matrix of zeros, which leaves the first one without a gradient.
SECOND_MATRIX_SCALE = 0.02


def step_gradients(settings: Mapping[str, Any]) -> tuple[dict[str, Tensor], float]:
    """Train one step of a config.

    Args:
        settings: with max_steps 1 and max_grad_norm 0.

    Returns:
        The gradients of the adapter by parameter, and the loss in nats per supervised token.
    """
    prepared = prepare(load_config(settings))
    # These import transformers, which must come after Unsloth: `prepare` has seen to that.
    from component.pipeline.build_run import build_run
    from component.trainers.callbacks.step_gradients import StepGradients

    Path(settings["output_dir"]).mkdir(parents=True, exist_ok=True)
    built = build_run(prepared)
    fill_adapter(built.model.model)
    keeper = StepGradients()
    built.trainer.add_callback(keeper)
    built.trainer.train()
    losses = [record["loss"] for record in built.trainer.state.log_history if "loss" in record]
    return keeper.gradients, losses[0]


def fill_adapter(model: nn.Module) -> None:
    """Give each matrix of an adapter random values that depend on its name alone, the same for every loader."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            scale = SECOND_MATRIX_SCALE if "lora_B" in name else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def compare_gradients(mine: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, float]:
    """Hold gradients against those of a reference.

    Returns:
        `error`: norm of the difference over the norm of the reference, all parameters as one vector; `cosine` of the
        two vectors; `worst_error`: the largest error of a single parameter.

    Raises:
        KeyError: they are of different parameters.
    """
    if mine.keys() != reference.keys():
        raise KeyError(f"gradients of other parameters: {sorted(mine.keys() ^ reference.keys())[:3]}")
    squares, worst = [0.0, 0.0, 0.0, 0.0], 0.0
    for name, theirs in reference.items():
        ours, theirs = mine[name].double(), theirs.double()
        difference = (ours - theirs).pow(2).sum().item()
        terms = (difference, theirs.pow(2).sum().item(), ours.pow(2).sum().item(), (ours * theirs).sum().item())
        squares = [total + term for total, term in zip(squares, terms, strict=True)]
        worst = max(worst, (terms[0] / terms[1]) ** 0.5) if terms[1] else worst
    error = (squares[0] / squares[1]) ** 0.5
    return {"error": error, "cosine": squares[3] / (squares[1] * squares[2]) ** 0.5, "worst_error": worst}


def write_wide_model(folder: Path, sizes: Mapping[str, Any], tokenizer: Path) -> None:
    """Write a random Llama whose weights are exact in bfloat16, so that all number formats load the same values."""
    import torch

    from component.models.tiny import Shape, build_model, copy_tokenizer
    from component.models.tokenizer import read_tokenizer

    if (folder / "tokenizer_config.json").is_file():
        return
    tokens = read_tokenizer(str(tokenizer))
    token_ids = {f"{name}_token_id": getattr(tokens, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    shape = Shape(**{"initializer_range": 0.02, "tie_word_embeddings": False, **sizes})
    model = build_model(shape, seed=0, token_ids=token_ids).to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    copy_tokenizer(tokenizer, folder)


def write_long_rows(texts: Path, file: Path, *, num_rows: int, num_texts: int) -> None:
    """Write rows of so many texts each, one after the other."""
    lines = [json.loads(line)["text"] for line in texts.read_text(encoding="utf-8").splitlines()]
    rows = (" ".join(lines[num_texts * number : num_texts * (number + 1)]) for number in range(num_rows))
    write_if_changed(file, "".join(json.dumps({"text": row}) + "\n" for row in rows))
