"""The start and end cards of a run, from the objects of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loguru import logger

from component.artifacts.card import EndFacts, StartFacts, end_card, start_card
from component.artifacts.data_facts import shorten_pieces
from component.artifacts.terminal import uses_color
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.models.loaded import LoadedModel
from component.pipeline.prepare import PreparedRun
from component.pipeline.sample_text import decode_pieces, parts_of
from component.pipeline.steps import num_optimizer_steps, num_rows_per_step
from component.runtime.distributed import is_main_process
from component.runtime.hardware import model_flops_utilization, peak_bf16_flops
from component.runtime.redaction import redact


def show_start_card(
    prepared: PreparedRun, model: LoadedModel, *, notices: Sequence[str], num_rows: int, start_step: int
) -> None:
    """Show what is about to run.

    Args:
        notices: all of the run, one line each.
        num_rows: of an epoch, as batch sizes count them.
    """
    if not is_main_process():
        return
    config = prepared.config
    trainable, total = count_parameters(model.model)
    reports = [prepared.data.report, *([prepared.data.eval_report] if prepared.data.eval_report else [])]
    shown = parts_of(prepared.data.train[0])[0][1]  # of a pair, the better answer
    facts = StartFacts(
        hardware=prepared.hardware,
        model=config.model.model_name_or_path,
        task=config.model.task_type,
        mode=config.model.train_mode,
        loader_asked="unsloth" if prepared.loader.is_fallback else prepared.loader.got,
        loader_got=prepared.loader.got,
        loader_reason=prepared.loader.reason,
        attention=str(model.got.get("attn_implementation")),
        dtype=str(model.got.get("compute_dtype")),
        num_trainable=trainable,
        num_parameters=total,
        data=tuple(line for report in reports for line in report.lines()),
        num_steps=num_optimizer_steps(config.training, num_rows),
        first_step=start_step,
        global_batch_size=num_rows_per_step(config.training),
        sample=shorten_pieces(decode_pieces(shown, prepared.tokenizer)),
        sample_source=str(shown.source),
        notices=tuple(notices),
        hints=tuple(map(str, prepared.hints)),
    )
    _show(start_card, facts)


def show_end_card(
    prepared: PreparedRun,
    model: LoadedModel,
    metrics: dict[str, Any],
    timings: Mapping[str, Any],
    *,
    planned_steps: int,
    why_not_faster: Sequence[str],
) -> None:
    """Complete `metrics` by the MFU and show what came of the run."""
    _, total = count_parameters(model.model)
    speed = metrics["real_tokens_per_second"]
    metrics["mfu"] = (
        model_flops_utilization(
            num_parameters=total,
            tokens_per_second=speed,
            frozen_base=prepared.config.model.train_mode != "full",
            peak_flops=peak_bf16_flops(prepared.hardware.name) if prepared.hardware.kind == "cuda" else None,
        )
        if speed
        else None
    )
    if not is_main_process():
        return
    folder = prepared.config.run.output_dir
    facts = EndFacts(
        hardware=prepared.hardware,
        first_loss=metrics["first_loss"],
        last_loss=metrics["last_loss"],
        eval_loss=metrics["eval_loss"],
        eval_perplexity=metrics["eval_perplexity"],
        loss_unit="nats per supervised token" if prepared.task.name in LANGUAGE_MODEL_TASKS else "",
        task_metrics={name: (values[0], values[1]) for name, values in metrics["task_metrics"].items()},
        last_step=metrics["last_step"],
        planned_steps=planned_steps,
        model_step=metrics["model_step"],
        real_tokens_per_second=speed,
        padded_tokens_per_second=metrics["padded_tokens_per_second"],
        mfu=metrics["mfu"],
        peak_allocated_bytes=metrics["peak_allocated_bytes"],
        peak_reserved_bytes=metrics["peak_reserved_bytes"],
        wall_seconds=timings["total_seconds"],
        why_not_faster=tuple(why_not_faster),
        start_seconds=timings.get("first_step_parts_seconds", {}),
        next_commands=(f"python script/chat.py --model {folder}",)
        if prepared.rendering.encoder.row_kind in ("messages", "preference", "labelled", "prompt")
        and prepared.task.name != "reward"
        else (),
    )
    _show(end_card, facts)


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters; a 4-bit weight counts as the parameters that it stands for."""
    trainable = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def _show(card: Any, facts: StartFacts | EndFacts) -> None:
    """Print a card to the terminal, and without colours to the log file alone."""
    print(redact(card(facts, color=uses_color())), flush=True)
    logger.bind(file_only=True).info("\n{}", card(facts, color=False))
