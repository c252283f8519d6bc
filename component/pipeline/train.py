"""From a prepared run to a finished run folder: load, train, save; every way to end is written into run.json."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from component.artifacts.final import remove_pickles, save_final_model
from component.artifacts.manifest import Manifest, Status
from component.artifacts.metrics import FILE_NAME as METRICS_FILE
from component.artifacts.plots import plot_loss
from component.config.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    GuardError,
    InterruptedRun,
    RunError,
    UserError,
)
from component.models.loaded import LoadedModel
from component.pipeline.build_run import BuiltRun, build_run
from component.pipeline.cards import show_end_card, show_start_card
from component.pipeline.completions import num_training_rows
from component.pipeline.disk import check_disk
from component.pipeline.manifest_content import plan_content
from component.pipeline.open_run import OpenedRun
from component.pipeline.out_of_memory import memory_advice
from component.pipeline.outcome import evaluate_outcome, final_metrics, settle_outcome
from component.pipeline.plan_run import as_built
from component.pipeline.prepare import PreparedRun
from component.pipeline.result import RunResult
from component.pipeline.speed_facts import speed_facts
from component.pipeline.steps import num_optimizer_steps
from component.planning.why_not_faster import why_not_faster
from component.runtime.distributed import is_main_process
from component.runtime.redaction import redact
from component.runtime.stopwatch import Stopwatch
from component.trainers.callbacks.first_step import FirstStepCallback
from component.trainers.callbacks.progress import close_console
from component.trainers.interrupts import Interrupts

#: Metrics that stand beside the plan's predictions in run.json.
MEASURED = ("peak_allocated_bytes", "peak_reserved_bytes", "padded_tokens_per_second")


def train(prepared: PreparedRun, opened: OpenedRun, *, began: float, watch: Stopwatch) -> RunResult:
    """Train a run in its opened folder.

    Args:
        began: `time.monotonic()` when the process began to work on the run.
        watch: has run since then; it stops at the end of the first step.

    Raises:
        InterruptedRun: a signal arrived; there is a checkpoint of the last step.
        GuardError, DeviceMemoryError: training could not go on; earlier checkpoints are kept.
    """
    manifest, folder = opened.manifest, Path(prepared.config.run.output_dir)
    start_step = _step_of(opened.checkpoint)
    progress = _Progress(start_step)
    with _RecordedEnd(manifest, folder, progress), Interrupts() as interrupts:
        manifest.begin_attempt(
            from_step=start_step,
            resumed_from=str(opened.checkpoint) if opened.checkpoint else None,
            notices=opened.notices,
        )
        (folder / METRICS_FILE).touch()  # however the attempt ends, there is something to read
        result = _train(prepared, opened, interrupts, progress, began, watch)
    manifest.end_attempt("finished", to_step=result.global_step, exit_code=0)
    return result


class _Progress:
    """How far training has come, known also when it ends in an exception."""

    def __init__(self, start_step: int) -> None:
        self._start_step = start_step
        self.trainer: Any = None

    @property
    def step(self) -> int:
        """The optimizer step that the run has come to."""
        return self.trainer.state.global_step if self.trainer else self._start_step


def _train(
    prepared: PreparedRun,
    opened: OpenedRun,
    interrupts: Interrupts,
    progress: _Progress,
    began: float,
    watch: Stopwatch,
) -> RunResult:
    folder = Path(prepared.config.run.output_dir)
    times = [began, time.monotonic()]
    watch.switch("model")
    built = build_run(prepared, interrupts)
    trainer, model, context = built.trainer, built.model, built.context
    _record_start(prepared, opened, built)
    ran = as_built(prepared, context.decided)
    if ran is not prepared:
        opened.manifest.update(plan=plan_content(ran))
    times.append(time.monotonic())
    progress.trainer = trainer
    trainer.add_callback(FirstStepCallback(watch))
    watch.switch("step")
    try:
        with memory_advice(ran, trainer):
            trainer.train(resume_from_checkpoint=str(opened.checkpoint) if opened.checkpoint else None)
    finally:
        close_console(trainer)
    if interrupts.has_stopped_training:
        raise InterruptedRun(
            f"stopped by {interrupts.received} after step {trainer.state.global_step}; "
            f"{folder}/checkpoint-{trainer.state.global_step} is complete; run the same command to go on"
        )
    with memory_advice(ran, trainer, may_save=not trainer.args.load_best_model_at_end):
        outcome = settle_outcome(trainer)
        evaluate_outcome(trainer, outcome, folder)
    times.append(time.monotonic())
    _save(prepared, model, folder)
    metrics, timings = final_metrics(outcome, context, folder), _timings(times, watch)
    measured = {name: metrics[name] for name in MEASURED} if context.hardware.kind == "cuda" else None
    plan = {**opened.manifest.content["plan"], "measured": measured}
    reasons = why_not_faster(
        speed_facts(
            prepared, built, metrics, first_step=_step_of(opened.checkpoint), train_seconds=timings["train_seconds"]
        )
    )
    opened.manifest.update(metrics=metrics, timings=timings, plan=plan, why_not_faster=list(reasons))
    show_end_card(prepared, model, metrics, timings, planned_steps=outcome.planned_steps, why_not_faster=reasons)
    return RunResult(folder, trainer.state.global_step, metrics)


def _record_start(prepared: PreparedRun, opened: OpenedRun, built: BuiltRun) -> None:
    """Check what can be checked before the first step, write what was built into run.json, and show the start card.

    Raises:
        UserError: an optimizer or schedule cannot be used, or the disk has too little room.
    """
    training, model, context = prepared.config.training, built.model, built.context
    num_rows = num_training_rows(prepared.config, len(built.trainer.train_dataset))  # packs, where the trainer packs
    num_steps = num_optimizer_steps(training, num_rows)
    check_optimizer(built.trainer, num_steps)
    check_disk(training, model.model, num_steps, context.output_dir)
    if opened.checkpoint:
        context.tokens.load(opened.checkpoint)
    own = (*opened.notices, *model.notices, *context.notices, *changed_rewards(opened, context.decided))
    notices = [redact(notice) for notice in (*prepared.notices, *own)]
    details = {"asked": dict(model.asked), "got": dict(model.got), **context.decided}
    opened.manifest.update(
        notices=notices,
        loader={**opened.manifest.content["loader"], "details": details},
    )
    start_step = _step_of(opened.checkpoint)
    show_start_card(prepared, model, notices=notices, num_rows=num_rows, start_step=start_step)


def _timings(times: Sequence[float], watch: Stopwatch) -> dict[str, Any]:
    """Seconds of each part of a run, from the times at which they began, of all of it until now, and of its start."""
    parts = ("prepare_seconds", "load_seconds", "train_seconds")
    spans = {name: end - start for name, start, end in zip(parts, times, times[1:], strict=False)}
    spans["total_seconds"] = time.monotonic() - times[0]
    start = watch.seconds()
    if start is not None:
        spans["first_step_seconds"] = sum(start.values())
    rounded: dict[str, Any] = {name: round(seconds, 3) for name, seconds in spans.items()}
    if start is not None:
        rounded["first_step_parts_seconds"] = {part: round(seconds, 3) for part, seconds in start.items()}
    return rounded


def changed_rewards(opened: OpenedRun, decided: Mapping[str, Any]) -> list[str]:
    """A notice for each file of rewards that is another than in the attempt before."""
    before = opened.manifest.content["loader"].get("details", {}).get("reward_functions", {})
    now = decided.get("reward_functions", {})
    return [
        f"reward_functions: the file of {name} has changed since the attempt before, from which this one goes on"
        for name in now
        if opened.checkpoint and before.get(name, now[name]) != now[name]
    ]


def check_optimizer(trainer: Any, num_steps: int) -> None:
    """Build the optimizer and the schedule before the first batch, so that what they lack is said at once.

    Raises:
        UserError: a package is missing, or their arguments do not fit.
    """
    args = trainer.args
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return  # there they belong to the wrapped model
    for key, value, build in (
        ("optim", args.optim, trainer.create_optimizer),
        ("lr_scheduler_type", args.lr_scheduler_type, lambda: trainer.create_scheduler(num_training_steps=num_steps)),
    ):
        try:
            build()
        except (ImportError, ValueError, TypeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            name = getattr(value, "value", value)
            raise UserError(
                f"{key}: {name} cannot be used here: {reason}; mend its arguments or take another"
            ) from error


def _save(prepared: PreparedRun, model: LoadedModel, folder: Path) -> None:
    """Save the final weights and what belongs to them; rank 0 writes."""
    if not is_main_process():
        return
    if prepared.rendering.chat_template:
        prepared.tokenizer.chat_template = prepared.rendering.chat_template
    stops = prepared.rendering.stop_token_ids
    for notice in save_final_model(model.model, prepared.tokenizer, folder, stops, moved_start=model.moved_start):
        logger.info(notice)
    remove_pickles(folder)
    plot_loss(folder, folder.name)


class _RecordedEnd:
    """Closes the attempt where something ends it early, whatever that is; then what was logged so far is drawn."""

    def __init__(self, manifest: Manifest, folder: Path, progress: _Progress) -> None:
        self._manifest, self._folder, self._progress = manifest, folder, progress

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        status, exit_code, message = _ending(error)
        step = self._progress.step
        self._manifest.end_attempt(status, to_step=step, exit_code=exit_code, message=redact(message))
        if is_main_process():
            try:
                remove_pickles(self._folder)
                plot_loss(self._folder, self._folder.name)
            except (UserError, OSError) as failure:  # which does not hide why the run ended
                logger.warning(failure)


def _ending(error: BaseException) -> tuple[Status, int, str]:
    """Status, exit code and message of an attempt that an exception has ended."""
    if isinstance(error, RunError):
        return _status_of(error), error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED, "stopped at once"
    return "failed", EXIT_BUG, f"{type(error).__name__}: {error}"


def _status_of(error: RunError) -> Status:
    if isinstance(error, InterruptedRun):
        return "interrupted"
    return "stopped" if isinstance(error, GuardError) else "failed"


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
