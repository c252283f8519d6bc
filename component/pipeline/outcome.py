"""What came of training: the step whose weights are saved, why it ended there, and the metrics of those weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from component.artifacts.metrics import read_metrics
from component.runtime.distributed import is_main_process
from component.trainers.callbacks.metrics import peak_memory_bytes
from component.trainers.callbacks.progress import TASK_METRICS
from component.trainers.task import RunContext


@dataclass(frozen=True)
class Outcome:
    """Where training ended.

    Attributes:
        last_step: the last one that was done; planned_steps is how many there were to be.
        model_step: the one after which the weights in memory, which are saved, were as they are.
    """

    last_step: int
    planned_steps: int
    model_step: int


def settle_outcome(trainer: Any) -> Outcome:
    """Find out what a trainer has ended with, and say it where that is not simply the last step of all."""
    state, args = trainer.state, trainer.args
    has_best = bool(args.load_best_model_at_end and state.best_model_checkpoint)
    outcome = Outcome(
        last_step=state.global_step,
        planned_steps=state.max_steps,
        model_step=state.best_global_step if has_best else state.global_step,
    )
    if not is_main_process():
        return outcome
    best = f"{args.metric_for_best_model} {state.best_metric:.4f}" if state.best_metric is not None else ""
    if has_best:
        name = Path(state.best_model_checkpoint).name
        logger.info(f"{name} was the best, with {best}: its weights are loaded, and they are what is saved")
    elif outcome.last_step < outcome.planned_steps and best:
        at = f" at step {state.best_global_step}" if state.best_global_step else ""
        logger.info(
            f"the best {best} was{at}; the weights of the last step are saved, as load_best_model_at_end is false"
        )
    return outcome


def evaluate_outcome(trainer: Any, outcome: Outcome, folder: Path) -> None:
    """Evaluate the final weights unless that was done already, perhaps by an attempt killed after it."""
    if trainer.eval_dataset is None or trainer.args.eval_strategy == "no":
        return
    evaluated = [record["step"] for record in read_metrics(folder) if "eval_loss" in record]
    if outcome.model_step not in evaluated:
        trainer.evaluate()


def final_metrics(outcome: Outcome, context: RunContext, folder: Path) -> dict[str, Any]:
    """The metrics of run.json; losses are those of the weights that are saved."""
    import torch

    logged = read_metrics(folder)
    # What was logged after the best checkpoint is of other weights.
    records = [record for record in logged if record["step"] <= outcome.model_step]
    losses = [record["loss"] for record in records if "loss" in record]
    evaluation = next((record for record in reversed(records) if "eval_loss" in record), {})
    speed = context.tokens.tokens_per_second()
    counts = context.tokens.read()
    on_gpu = context.hardware.kind == "cuda"
    return {
        "first_loss": next((record["loss"] for record in logged if "loss" in record), None),
        "last_loss": losses[-1] if losses else None,
        "eval_loss": evaluation.get("eval_loss"),
        "eval_perplexity": evaluation.get("eval_perplexity"),
        "task_metrics": _task_metrics(records),
        "last_step": outcome.last_step,
        "model_step": outcome.model_step,
        "supervised_tokens": counts.supervised,
        "total_tokens": counts.real,
        "real_tokens_per_second": round(speed[0], 2) if speed else None,
        "padded_tokens_per_second": round(speed[1], 2) if speed else None,
        "data_wait_share": round(wait, 6) if (wait := context.tokens.data_wait_share()) is not None else None,
        "peak_allocated_bytes": peak_memory_bytes(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
    }


def _task_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """What says more of a task than its loss -> its first and its last logged value."""
    found = {}
    for name, word in TASK_METRICS.items():
        values = [record[name] for record in records if record.get(name) is not None]
        if values:
            found[word] = [values[0], values[-1]]
    return found
