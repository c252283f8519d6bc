"""From a prepared run to its trainer: the weights, what the trainer is to know of its run, and the trainer itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from component.models.loaded import LoadedModel
from component.models.padded_rows import settle_cudnn
from component.pipeline.load_models import load_models
from component.pipeline.prepare import PreparedRun
from component.planning.gpus import CONTEXT_BYTES, GIB
from component.runtime.device_memory import limit_memory
from component.runtime.seeds import seed_everything
from component.trainers.interrupts import Interrupts
from component.trainers.task import RunContext
from component.trainers.token_counter import TokenCounter


@dataclass(frozen=True)
class BuiltRun:
    """A run that is ready to train; `context` has what the builder of the trainer decided and changed."""

    trainer: Any
    model: LoadedModel
    context: RunContext


def build_run(prepared: PreparedRun, interrupts: Interrupts | None = None) -> BuiltRun:
    """Load the weights and build the trainer.

    Args:
        interrupts: tells whether the user asked the run to stop; None where nobody can.

    Raises:
        UserError, DeviceMemoryError: as `load_models` and the task say.
    """
    return build_trainer(prepared, load_weights(prepared), interrupts)


def load_weights(prepared: PreparedRun) -> LoadedModel:
    """Load the weights from the run's seed, and from here on within its cap of memory; see `build_run`."""
    seed_everything(prepared.config.model.seed)
    cap = prepared.config.training.max_memory_gib
    if cap is not None:
        limit_memory(cap * GIB - CONTEXT_BYTES, prepared.hardware)
    return load_models(prepared)


def build_trainer(prepared: PreparedRun, model: LoadedModel, interrupts: Interrupts | None = None) -> BuiltRun:
    """Build the trainer of weights that are loaded; see `build_run`."""
    context = RunContext(
        output_dir=Path(prepared.config.run.output_dir),
        hardware=prepared.hardware,
        precision=prepared.precision,
        loader=prepared.loader.got,
        stop_token_ids=prepared.rendering.stop_token_ids,
        tokens=TokenCounter(),
        interrupts=interrupts or Interrupts(),
        has_tiled_mlp=bool(model.got.get("tiled_mlp")),
    )
    if context.loader == "vanilla":
        lengths = chain(prepared.data.train.lengths.tolist(), prepared.data.evaluation.lengths.tolist())
        context.decided["cudnn_attention"] = settle_cudnn(lengths)
    seed_everything(prepared.config.model.seed)
    trainer = prepared.task.build(prepared.section, prepared.config.training, model, prepared.data, context)
    return BuiltRun(trainer, model, context)
