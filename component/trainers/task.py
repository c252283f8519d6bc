"""What a training type is, and what its trainer is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from component.trainers.interrupts import Interrupts
from component.trainers.token_counter import TokenCounter

if TYPE_CHECKING:
    from transformers import Trainer

    from component.config.schema import TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel
    from component.models.precision import Precision
    from component.runtime.hardware import Hardware


@dataclass(frozen=True)
class RunContext:
    """What a trainer needs to know of its run beside config, model and data.

    Attributes:
        output_dir: the run folder.
        loader: the name of the loader that made the model.
        stop_token_ids: tokens that end an answer.
        tokens: counts what is trained on; metrics and the final report read it.
        interrupts: tells whether the user asked the run to stop.
        has_tiled_mlp: whether the model's MLPs are computed in tiles.
        notices: what the builder of the trainer changed or left out, one line each; it adds to them.
        decided: what the builder decided, by key, for run.json.
    """

    output_dir: Path
    hardware: Hardware
    precision: Precision
    loader: str
    stop_token_ids: Sequence[int]
    tokens: TokenCounter
    interrupts: Interrupts
    has_tiled_mlp: bool = False
    notices: list[str] = field(default_factory=list)
    decided: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A training type: which rows it reads and how its trainer is built.

    Attributes:
        row_kind: the kind of rows that it reads, as formats name it.
        section: name of the config section that `build` gets as its first argument.
        build: (task section, training section, model, data, context) -> a transformers Trainer, ready to train.
        needs_reference_model: (task section, training section) -> whether `build` wants `LoadedModel.reference`.
    """

    name: str
    row_kind: Literal["messages", "text", "preference", "labelled", "prompt"]
    section: str
    build: Callable[[Any, TrainingSection, LoadedModel, PreparedData, RunContext], Trainer]
    needs_reference_model: Callable[[Any, TrainingSection], bool] = lambda section, training: False
