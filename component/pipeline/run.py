"""One call from a config to a finished run; train.py and the Python API stand on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from component.artifacts.manifest import Manifest
from component.config.load import Config, load_config
from component.models.unsloth_import import UnslothFailed
from component.pipeline.choose_loader import restart_with_vanilla
from component.pipeline.prepare import prepare
from component.pipeline.result import RunResult
from component.runtime.distributed import is_main_process, rank
from component.runtime.logging import configure_logging
from component.runtime.stopwatch import Stopwatch


def run(source: str | Path | Mapping[str, Any], *, resume: str = "auto", **overrides: Any) -> RunResult:
    """Train what a config describes.

    Args:
        source: a train_args file, or a mapping of keys.
        resume: "auto" goes on where an unfinished run stopped, "never" wants an empty folder, else a checkpoint's path.
        overrides: keys that win over the source.

    Returns:
        The finished run; at once if this very run was finished before.

    Raises:
        RunError: for all that the user can mend or has asked for; its `exit_code` is train.py's.

    Example:
        run("train_args/sft/qlora/llama3-8b.json", learning_rate=1e-4, output_dir="output/lower-rate")
    """
    return run_config(load_config(source, overrides), resume=resume)


def run_config(
    config: Config, *, resume: str = "auto", may_restart: bool = False, began: float | None = None
) -> RunResult:
    """Train a loaded config; see `run`.

    Args:
        may_restart: where Unsloth fails after it has patched this process, and the config lets it fall back, replace
            the process by one of the same command with the vanilla loader. Else that is an error.
        began: when the command began, as a time of `time.monotonic()`; None where it is this call.
    """
    began = time.monotonic() if began is None else began
    try:
        return _run(config, resume, began)
    except UnslothFailed as error:
        if not may_restart or config.model.use_unsloth == "require":
            raise
        logger.warning(f"Unsloth failed: {error.reason}; starting again with the vanilla loader")
        restart_with_vanilla(error.reason)


def _run(config: Config, resume: str, began: float) -> RunResult:
    watch = Stopwatch(began)
    prepared = prepare(config, watch)
    watch.switch("imports")
    # These import transformers, which must come after Unsloth: `prepare` has seen to that.
    from component.pipeline.data_report import write_data_report
    from component.pipeline.manifest_content import manifest_content
    from component.pipeline.open_run import open_run
    from component.pipeline.train import train

    watch.switch("data")
    opened = open_run(prepared, manifest_content(prepared), resume)
    folder = Path(config.run.output_dir)
    if opened.is_finished:
        logger.info(
            f"{folder} holds this run, finished; nothing to do (--resume never and a new output_dir start again)"
        )
        return finished_result(opened.manifest)
    configure_logging(folder / "train.log", rank())
    if is_main_process():
        write_train_args(prepared.config, folder)
        write_data_report(prepared, folder)
    return train(prepared, opened, began=began, watch=watch)


def finished_result(manifest: Manifest) -> RunResult:
    """The result of a run that was finished before."""
    content = manifest.content
    return RunResult(manifest.folder, content["attempts"][-1]["to_step"], content["metrics"], was_finished=True)


def write_train_args(config: Config, folder: Path) -> None:
    """Write train_args.yaml: the merged config, enough to run again."""
    import yaml

    text = yaml.safe_dump(dict(config.written), sort_keys=False, allow_unicode=True)
    (folder / "train_args.yaml").write_text(text, encoding="utf-8")
