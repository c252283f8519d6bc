"""What a loader is asked for, in one piece: the config's sections, where the files are, what they are loaded for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from component.config.schema import AdapterSection, ModelSection
from component.models.model_files import ModelSource, find_model, read_source_config
from component.models.precision import Precision
from component.models.quantization import check_quantization
from component.models.tokenizer import new_token_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from component.runtime.hardware import Hardware


@dataclass(frozen=True)
class LoadRequest:
    """The arguments of a loader; see `load_vanilla`."""

    model: ModelSection
    adapter: AdapterSection
    tokenizer: PreTrainedTokenizerBase
    precision: Precision
    hardware: Hardware
    gradient_checkpointing_kwargs: Mapping[str, Any]

    @cached_property
    def source(self) -> ModelSource:
        """Where the weights are."""
        return find_model(self.model)

    @cached_property
    def files_config(self) -> dict[str, Any]:
        """config.json of the base."""
        return read_source_config(self.source)

    @cached_property
    def own_quantization(self) -> str | None:
        """How the checkpoint is quantized, None where it is not; see `check_quantization`."""
        return check_quantization(self.files_config, self.model.train_mode)

    @cached_property
    def new_tokens(self) -> dict[int, Sequence[int]]:
        """Ids of the tokens that the run adds, and what each was made of before; see `new_token_parts`."""
        return new_token_parts(self.model, self.tokenizer)
