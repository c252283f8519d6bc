"""What a finished run shows of its speed: measurements, what its settings lost, what the planner finds faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from component.config.keys import LANGUAGE_MODEL_TASKS
from component.models.packed_attention import SLOW, why_not_packable
from component.models.unsloth_import import has_fused_dropout
from component.pipeline.build_run import BuiltRun
from component.pipeline.faster_settings import faster_settings, room_bytes
from component.pipeline.plan_run import as_built
from component.pipeline.prepare import PreparedRun
from component.planning.why_not_faster import SpeedFacts


def speed_facts(
    prepared: PreparedRun, built: BuiltRun, metrics: Mapping[str, Any], *, first_step: int, train_seconds: float
) -> SpeedFacts:
    """Collect what `why_not_faster` looks at.

    Args:
        metrics: those of run.json.
        first_step: steps done before this attempt.
        train_seconds: of this attempt, evaluations included.
    """
    training, on_gpu = prepared.config.training, prepared.hardware.kind == "cuda"
    is_packed = bool(built.context.decided.get("packing", {}).get("got"))
    real, padded = metrics["real_tokens_per_second"], metrics["padded_tokens_per_second"]
    evaluations = _evaluation_seconds(built.trainer, first_step)
    groups = prepared.task.name in LANGUAGE_MODEL_TASKS and not is_packed
    room = room_bytes(prepared, metrics["peak_reserved_bytes"]) if on_gpu else 0.0
    ran = as_built(prepared, built.context.decided)
    slow_attention, attention_fix = _attention(prepared, built, is_packed=is_packed)
    return SpeedFacts(
        on_gpu=on_gpu,
        padding_share=1 - real / padded if real and padded else None,
        # On a CPU packed rows have dense masks, which take longer than the padding that they save.
        may_pack=on_gpu and groups and training.packing is False and why_not_packable(prepared.model_config) is None,
        may_group=groups and not training.group_by_length,
        data_wait_share=metrics["data_wait_share"],
        num_workers=training.dataloader_num_workers,
        evaluation_share=sum(evaluations) / train_seconds if train_seconds else None,
        num_evaluations=len(evaluations),
        eval_steps=training.eval_steps if training.eval_strategy == "steps" else None,
        lost_kernels=tuple(_lost_kernels(prepared)),
        slow_attention=slow_attention,
        attention_fix=attention_fix,
        planned=tuple(faster_settings(ran, metrics["peak_reserved_bytes"], room=room)) if on_gpu else (),
        room_bytes=room,
    )


def _evaluation_seconds(trainer: Any, first_step: int) -> list[float]:
    """Of each evaluation of this attempt; the log of a resumed run begins with that of the attempts before."""
    records = trainer.state.log_history
    return [record["eval_runtime"] for record in records if "eval_runtime" in record and record["step"] > first_step]


def _lost_kernels(prepared: PreparedRun) -> Iterator[str]:
    """Overrides that give Unsloth's fused kernels for adapters back."""
    adapter = prepared.config.adapter
    if prepared.loader.got != "unsloth" or prepared.config.model.train_mode == "full":
        return
    if adapter.lora_dropout > 0 and not has_fused_dropout(prepared.hardware):
        yield "lora_dropout=0"
    if adapter.use_dora:
        yield "use_dora=false"


def _attention(prepared: PreparedRun, built: BuiltRun, *, is_packed: bool) -> tuple[str | None, str]:
    """A slow way in which rows attended, in words, and what to do; None where there was none."""
    asked, got = prepared.config.model.attn_implementation, built.model.got
    is_choice = asked != "auto" and prepared.loader.got != "unsloth"
    if is_packed and got.get("packed_attention") in SLOW:
        capability = prepared.hardware.compute_capability or (0, 0)
        can_install = capability >= (8, 0) and find_spec("flash_attn") is None
        fix = "attn_implementation=auto" if is_choice else "flash-attn, once installed" if can_install else ""
        return f"packed rows ran on {got['packed_attention']}", fix
    if is_choice and got.get("attn_implementation") == "eager":
        return "attention ran as eager operations", "attn_implementation=auto"
    return None, ""
