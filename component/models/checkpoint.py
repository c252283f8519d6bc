"""Checkpoints through transformers: their configuration, and their weights, complete or refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.models.failures import told_as_user_error
from component.models.language_model import auto_class, explain_left_out
from component.models.model_files import ModelSource, read_source_config
from component.runtime.logging import demote_to_debug

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

_NUM_SHOWN = 3
_FIX = "check its files"
# Old checkpoints store what is computed, and some a copy of a tied head.
_REDUNDANT = re.compile(r"rotary_emb\.inv_freq$|^lm_head\.weight$")


def load_config(source: ModelSource, *, trust_remote_code: bool) -> PretrainedConfig:
    """Read a base model's config.json the way transformers understands it.

    Raises:
        UserError: an unknown family, impossible values, or code that may not run.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    content = read_source_config(source)
    subject = f"model_name_or_path: {source.base}"
    if "auto_map" not in content and content["model_type"] not in CONFIG_MAPPING:
        raise UserError(
            f"{subject} has model_type {content['model_type']!r}, which the installed transformers does not know; "
            "check its config.json, or install a transformers that does"
        )
    try:
        with told_as_user_error(subject, _FIX):
            return AutoConfig.from_pretrained(
                source.base, revision=source.base_revision, trust_remote_code=trust_remote_code
            )
    except UserError as error:
        raise _about_remote_code(source, error) from error.__cause__


def load_weights(
    source: ModelSource,
    config: PretrainedConfig,
    *,
    model_class: Any = None,
    may_lack: Collection[str] = (),
    may_hold: Collection[str] = (),
    **arguments: Any,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load a base model with every one of its weights.

    Args:
        config: from `load_config`; it decides the class.
        model_class: one of transformers' auto classes, where it is not that of a language model.
        may_lack, may_hold: names of weights that the files need not have, and of those that have no place.
        arguments: of from_pretrained, revision and config aside.

    Returns:
        The model, and notices: of weights in the files that it has no place for, of parts that it is loaded without.

    Raises:
        UserError: damaged files, weights that are missing (tied ones are not), or of other shapes than config.json has.
    """
    subject = f"model_name_or_path: {source.base}"
    demote_to_debug([r"LOAD REPORT"])  # its table of names is told below, in one line
    try:
        with told_as_user_error(subject, _FIX):
            model, report = (model_class or auto_class(config)).from_pretrained(
                source.base,
                config=config,
                revision=source.base_revision,
                output_loading_info=True,
                # Refused below, with a name; transformers' own refusal has none.
                ignore_mismatched_sizes=True,
                **arguments,
            )
    except UserError as error:
        raise _about_remote_code(source, error) from error.__cause__
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, stored, expected = mismatched[0]
        raise UserError(
            f"{subject} has weights of other shapes than its config.json asks for ({len(mismatched)}): "
            f"{name} is {list(stored)} and not {list(expected)}; {_FIX}"
        )
    notices = _check_names(
        source,
        missing=set(report["missing_keys"]) - set(may_lack),
        unexpected=set(report["unexpected_keys"]) - set(may_hold),
    )
    left_out = explain_left_out(config)
    return model, (*notices, left_out) if left_out else notices


def load_quantized(folder: Path, config: PretrainedConfig, **arguments: Any) -> PreTrainedModel:
    """Load the quantized weights that a run has kept of a base model.

    Args:
        folder: of the entry, whose config.json is that of the base with the settings of the quantization.
        config: of the base, from `load_config`.
        arguments: as of `load_weights`.

    Raises:
        UserError: as `load_weights`.
    """
    source = ModelSource(base=str(folder))
    quantized = copy.deepcopy(config)
    quantized.quantization_config = read_source_config(source)["quantization_config"]
    model, _ = load_weights(source, quantized, **arguments)
    return model


def check_stored_names(source: ModelSource, model: nn.Module) -> tuple[str, ...]:
    """As `load_weights` checks, for a model that another library loaded and whose weights are named as in the files.

    Args:
        model: without an adapter.

    Returns:
        A notice where the files hold weights that the model has no place for; none without local safetensors files.

    Raises:
        UserError: weights are missing.
    """
    stored = _stored_names(Path(source.base))
    if not stored:
        return ()
    # Tied parameters are listed once, under the name of the first.
    parameters = {name for name, _ in model.named_parameters()}
    known = parameters | {name for name, _ in model.named_buffers()}
    # A quantized checkpoint stores the parts of a weight beside it, as weight.absmax and so on.
    extra = {name for name in stored - known if name.partition(".weight.")[0] + ".weight" not in known}
    unexpected = {name for name in extra if not _REDUNDANT.search(name)}
    return _check_names(source, missing=parameters - stored, unexpected=unexpected)


def _stored_names(folder: Path) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for file in sorted(folder.glob("model*.safetensors")):
        with told_as_user_error(f"model_name_or_path: {folder}", _FIX), safe_open(file, framework="pt") as content:
            names.update(content.keys())
    return names


def _check_names(source: ModelSource, *, missing: Collection[str], unexpected: Collection[str]) -> tuple[str, ...]:
    if missing:
        raise UserError(
            f"model_name_or_path: {source.base} lacks weights that its config.json asks for ({len(missing)}): "
            f"{_listed(missing)}; {_FIX}"
        )
    if not unexpected:
        return ()
    return (
        f"model_name_or_path: {source.base} holds weights that its config.json has no place for ({len(unexpected)}), "
        f"they are ignored: {_listed(unexpected)}",
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")


def _about_remote_code(source: ModelSource, error: UserError) -> UserError:
    """The advice to read and allow a checkpoint's own code, where that is what an error is about."""
    if "trust_remote_code" not in str(error.__cause__ or ""):
        return error
    return UserError(
        f"model_name_or_path: {source.base} brings its own Python code; "
        "read that code, then set trust_remote_code: true to run it"
    )
