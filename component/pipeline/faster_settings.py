"""Settings that the planner finds faster than those of a finished run, held against the memory that it really took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from component.config.batches import why_micro_batch_matters
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.config.schema import ModelSection
from component.models.model_files import find_model
from component.models.unsloth_fit import why_no_gain, why_not_unsloth
from component.pipeline.plan_run import plan_prepared
from component.pipeline.prepare import PreparedRun
from component.pipeline.saving_settings import spell_overrides
from component.pipeline.settle_run import device_room
from component.planning.gpus import Gpu
from component.planning.memory import plan_memory
from component.planning.plan import Plan
from component.planning.read_config import unsloth_fields
from component.planning.step_time import AT_ONCE, plan_step_time
from component.planning.why_not_faster import Finding


def room_bytes(prepared: PreparedRun, peak_reserved: int) -> float:
    """Memory that was left at the peak, of what a choice may reserve; negative where the run took more than that."""
    return device_room(prepared.config, prepared.hardware) - peak_reserved


def faster_settings(prepared: PreparedRun, peak_reserved: int, *, room: float) -> Iterator[Finding]:
    """Find them; none where the planner does not know the model, the card, or how the run is sharded.

    Args:
        prepared: as it was built.
        peak_reserved: bytes that torch had reserved at the peak.
        room: from `room_bytes`.
    """
    training = prepared.config.training
    planned = plan_prepared(prepared)
    if planned is None or training.fsdp or training.deepspeed:
        return
    made = planned.plan
    if made.gpu is None or made.time is None:
        return
    compared = _Compared(prepared, made, made.gpu, max(1.0, peak_reserved / made.memory.reserved))
    yield from compared.without_recomputation(room)
    yield from compared.with_plain_weights()
    yield from compared.with_a_fused_optimizer()
    yield from compared.with_larger_micro_batches()
    yield from compared.with_unsloth()


@dataclass(frozen=True)
class _Compared:
    """A run and its plan, with which other settings are compared.

    Attributes:
        scale: what the run took, in times of its plan, where that was more.
    """

    prepared: PreparedRun
    made: Plan
    gpu: Gpu
    scale: float

    def without_recomputation(self, room: float) -> Iterator[Finding]:
        """Keep activations: all of them, or those of as many layers as there is room for."""
        if self.made.workload.checkpointing == "none":
            return
        what = "activations were recomputed, and memory was left"
        whole = self._find(what, "gradient_checkpointing=false", checkpointing="none", skipped_layers=0)
        skipped = self.made.workload.skipped_layers
        if skipped:
            whole = replace(whole, fix=f"{whole.fix} checkpoint_skip_layers=0")
        num_layers = self.made.workload.shape.num_layers - skipped
        if whole.extra_bytes <= room or self.prepared.config.model.task_type not in LANGUAGE_MODEL_TASKS:
            yield whole
        elif (layers := int(num_layers * room / whole.extra_bytes)) > 0:
            share = layers / num_layers
            fix = f"checkpoint_skip_layers={skipped + layers}"
            yield replace(whole, fix=fix, gain=whole.gain * share, extra_bytes=whole.extra_bytes * share)

    def with_plain_weights(self) -> Iterator[Finding]:
        """Restore 4-bit weights once."""
        if self.made.workload.quantization in ("nf4", "fp4") and not self.made.workload.is_dequantized:
            what = "4-bit weights were restored in each pass, and memory was left"
            yield self._find(what, "dequantize_base=true", is_dequantized=True)

    def with_a_fused_optimizer(self) -> Iterator[Finding]:
        """Update all tensors at once."""
        optimizer = self.made.workload.optimizer
        if "adamw" in optimizer and optimizer not in AT_ONCE:
            what = f"{optimizer} updates tensor by tensor"
            yield self._find(what, "optim=adamw_torch_fused", optimizer="adamw_torch_fused")

    def with_larger_micro_batches(self) -> Iterator[Finding]:
        """Fewer and larger micro-batches where the host cannot start kernels as fast as the card runs them."""
        made, time = self.made, self.made.time
        assert time is not None
        config = self.prepared.config
        if time.launch <= time.compute or made.micro_batches % 2 or why_micro_batch_matters(config.values):
            return
        rows, micro_batches = made.workload.rows * 2, made.micro_batches // 2
        fix = f"per_device_train_batch_size={rows}"
        if config.training.global_batch_size is None:
            fix += f" gradient_accumulation_steps={micro_batches}"
        what = "micro-batches were too small to keep the card busy"
        yield self._find(what, fix, micro_batches=micro_batches, rows=rows, gradients_wait=micro_batches > 1)

    def with_unsloth(self) -> Iterator[Finding]:
        """Unsloth's kernels, where they were not used and could be."""
        fix = unsloth_fix(self.prepared)
        if fix is None:
            return
        loader = self.prepared.loader
        what = f"Unsloth was not used ({loader.reason})" if loader.is_fallback else "Unsloth's kernels were not used"
        yield self._find(what, fix, **unsloth_fields(self.made.workload, self.prepared.config))

    def _find(self, what: str, fix: str, *, micro_batches: int | None = None, **changes: Any) -> Finding:
        """What other fields of the workload would save and take."""
        made = self.made
        timed = made.timed or made.workload
        other = plan_step_time(replace(timed, **changes), self.gpu, micro_batches=micro_batches or made.micro_batches)
        assert made.time is not None and other is not None, "the card's speed is known"
        extra = plan_memory(replace(made.workload, **changes)).reserved - made.memory.reserved
        return Finding(1 - other.seconds / made.time.seconds, what, fix, extra_bytes=self.scale * extra)


def unsloth_fix(prepared: PreparedRun) -> str | None:
    """What makes a run use Unsloth that did not, and is faster with it; None where nothing does."""
    model, loader = prepared.config.model, prepared.loader
    if loader.got == "unsloth" or model.model_loader is not None:
        return None
    around = model.task_type, prepared.hardware, prepared.model_config
    changes = dict(_unsloth_changes(model, prepared.model_config))
    changed = replace(model, **changes)
    if why_no_gain(changed, *around) or why_not_unsloth(changed, *around, adapter=find_model(model).adapter):
        return None
    if find_spec("unsloth") is None or find_spec("unsloth_zoo") is None:
        return "pip install --no-deps -r requirements-unsloth.txt"
    asked = {} if loader.is_fallback else {"use_unsloth": True}
    return " ".join(spell_overrides(asked | changes)) or None


def _unsloth_changes(model: ModelSection, model_config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys that Unsloth would not follow, with the values that it has."""
    if model.rope_scaling:
        yield "rope_scaling", {}
    if model.train_mode == "qlora" and model.quantization == "int4" and not model_config.get("quantization_config"):
        if model.bnb_4bit_quant_type != "nf4":
            yield "bnb_4bit_quant_type", "nf4"
        if not model.bnb_4bit_use_double_quant:
            yield "bnb_4bit_use_double_quant", True
