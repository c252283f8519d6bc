"""Which loader a run gets, decided before transformers is imported: Unsloth must come first and patches the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.model_files import find_model, read_source_config
from component.models.unsloth_fit import why_no_gain, why_not_unsloth

if TYPE_CHECKING:
    from component.runtime.hardware import Hardware

#: Tells a restarted process why the one before gave Unsloth up.
FAILURE_VARIABLE = "LAMPYRIS_UNSLOTH_FAILED"
IMPORTED_AFTER_UNSLOTH = ("transformers", "trl", "peft")


@dataclass(frozen=True)
class LoaderChoice:
    """A loader by its name in the registry.

    Attributes:
        asked: the value of `use_unsloth`, or of `model_loader` where that is set.
        got: "vanilla" or "unsloth".
        reason: why, in words for a person.
        is_fallback: whether Unsloth was asked for and something else is used; worth a warning.
    """

    asked: bool | str
    got: str
    reason: str
    is_fallback: bool = False

    @property
    def notice(self) -> str | None:
        """What is told of a fallback; None where there is none."""
        return f"use_unsloth: true falls back to the {self.got} loader: {self.reason}" if self.is_fallback else None


def choose_loader(model: ModelSection, task_type: str, hardware: Hardware) -> LoaderChoice:
    """Choose the loader from config.json, what is installed, the hardware and the support table.

    Raises:
        UserError: `use_unsloth: require` cannot be met, or the model is missing or unreachable.
    """
    named = _named(model)
    if named is not None:
        return named
    source = find_model(model)
    config = read_source_config(source)
    obstacle = _process_obstacle() or why_not_unsloth(model, task_type, hardware, config, adapter=source.adapter)
    return _decide(model, task_type, hardware, config, obstacle)


def foresee_loader(
    model: ModelSection, hardware: Hardware, config: Mapping[str, Any], *, adapter: str | None
) -> LoaderChoice:
    """Choose the loader as `choose_loader` would in a process that has all that Unsloth needs.

    Args:
        config, adapter: see `why_not_unsloth`.

    Raises:
        UserError: `use_unsloth: require` cannot be met.
    """
    named, task_type = _named(model), model.task_type
    if named is not None:
        return named
    obstacle = why_not_unsloth(model, task_type, hardware, config, adapter=adapter)
    return _decide(model, task_type, hardware, config, obstacle)


def _named(model: ModelSection) -> LoaderChoice | None:
    """The loader where the config alone decides."""
    if model.model_loader is not None:
        return LoaderChoice(model.model_loader, model.model_loader, "model_loader names it")
    return LoaderChoice(False, "vanilla", "use_unsloth: false") if model.use_unsloth is False else None


def _decide(
    model: ModelSection, task_type: str, hardware: Hardware, config: Mapping[str, Any], obstacle: str | None
) -> LoaderChoice:
    asked = model.use_unsloth
    if asked == "auto":
        obstacle = obstacle or why_no_gain(model, task_type, hardware, config)
        if obstacle is not None:
            return LoaderChoice(asked, "vanilla", obstacle)
        return LoaderChoice(asked, "unsloth", f"Unsloth has its own kernels for {config['model_type']}")
    if obstacle is None:
        return LoaderChoice(asked, "unsloth", "as asked")
    if asked == "require":
        raise UserError(f"use_unsloth: require cannot be met: {obstacle}; mend that, or use use_unsloth: true")
    return LoaderChoice(asked, "vanilla", obstacle, is_fallback=True)


def restart_with_vanilla(reason: str) -> NoReturn:
    """Replace this process, which Unsloth has patched, by one of the same command that uses the vanilla loader."""
    os.environ[FAILURE_VARIABLE] = reason
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _process_obstacle() -> str | None:
    """Why this process cannot use Unsloth, whatever it is to load; None if it can."""
    failed = os.environ.get(FAILURE_VARIABLE)
    if failed:
        return f"Unsloth failed in this run: {failed}"
    missing = [name for name in ("unsloth", "unsloth_zoo") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed (pip install --no-deps -r requirements-unsloth.txt)"
    too_early = [name for name in IMPORTED_AFTER_UNSLOTH if name in sys.modules and "unsloth" not in sys.modules]
    if too_early:
        return f"{', '.join(too_early)} was imported before it, perhaps by a plugin"
    return None
