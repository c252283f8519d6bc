"""What is left at the top of a run folder: weights, tokenizer and generation config, and no pickles."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from component.artifacts.checkpoints import list_checkpoints
from component.artifacts.moved_start import subtract_start
from component.artifacts.strict_json import naming_disk_errors

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

#: transformers pickles its TrainingArguments under this name.
PICKLE_NAME = "training_args.bin"
#: Of a file of weights: what one can download, copy and load at a time. transformers' own is 50 GB.
MAX_SHARD_SIZE = "5GB"


def remove_pickles(folder: Path) -> list[Path]:
    """Delete training_args.bin from a run folder and its checkpoints.

    Returns:
        What was deleted.
    """
    found = [path / PICKLE_NAME for path in (folder, *list_checkpoints(folder)) if (path / PICKLE_NAME).is_file()]
    for path in found:
        path.unlink()
    return found


def save_final_model(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    stop_token_ids: Sequence[int],
    *,
    moved_start: Mapping[str, Tensor] | None = None,
) -> tuple[str, ...]:
    """Save an adapter or a whole model as safetensors, with its tokenizer, chat template and generation config.

    Args:
        tokenizer: with the chat template that the model was trained on.
        stop_token_ids: all tokens that end an answer, the tokenizer's EOS included where it does; at least one.
        moved_start: see `LoadedModel`; the adapter is saved for the base as it was.

    Returns:
        Notices for the run's report, one line each.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    from safetensors import SafetensorError

    assert stop_token_ids, "a model that never stops cannot be used"
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    generation, notices = None, ()
    if base.can_generate():  # a model with a score head does not
        generation, notices = _generation_config(base.generation_config, tokenizer, stop_token_ids)
        base.generation_config = generation
    # A frozen copy of the starting adapter may stand beside the trained one.
    trained_adapter = {"selected_adapters": ["default"]} if len(getattr(model, "peft_config", {})) > 1 else {}
    # transformers' Trainer turns the cache off for training; a saved config without it makes generation slow.
    trained_with = getattr(base.config, "use_cache", None)
    if trained_with is not None:
        base.config.use_cache = True
    with naming_disk_errors(folder):
        try:
            model.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE, **trained_adapter)
            if moved_start is not None:
                subtract_start(folder, moved_start)
        except SafetensorError as error:  # it wraps the system's errors, without their numbers
            raise OSError(str(error)) from error
        finally:
            if trained_with is not None:
                base.config.use_cache = trained_with
        if generation is not None:
            generation.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return notices


def _generation_config(
    own: GenerationConfig, tokenizer: PreTrainedTokenizerBase, stop_token_ids: Sequence[int]
) -> tuple[GenerationConfig, tuple[str, ...]]:
    """A copy of the model's own generation config that knows the stop tokens, and what had to be mended in it."""
    stops = list(dict.fromkeys(stop_token_ids))
    pad = stops[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    config = copy.deepcopy(own)
    config.eos_token_id, config.pad_token_id, config.use_cache = stops, pad, True
    if _can_be_saved(config):
        return config, ()
    # Some published models carry a temperature with do_sample off: transformers loads that and refuses to save it.
    config.do_sample = True
    if _can_be_saved(config):
        return config, ("generation_config: sampling values of the base model had do_sample off; saved with it on",)
    fresh = type(own)(eos_token_id=stops, pad_token_id=pad, bos_token_id=own.bos_token_id)
    return fresh, ("generation_config: the base model's own is invalid; saved with stop and pad tokens alone",)


def _can_be_saved(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True
