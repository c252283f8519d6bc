"""Writes metrics.jsonl: a line a logged step, in the units that DESIGN names, and keeps checkpoints free of pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.artifacts.final import remove_pickles
from component.artifacts.metrics import MetricsWriter
from component.trainers.token_counter import TokenCounter

#: What transformers logs beside the loss and is kept under its own name.
KEPT = ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_perplexity")
#: What TRL logs, in training and with "eval_" in evaluation, beside names with a slash such as rewards/margins.
KEPT_OF_TRL = (
    "entropy", "mean_token_accuracy", "aux_loss", "kl", "nll_loss", "log_odds_ratio", "log_odds_chosen",
    "accuracy", "margin", "min_reward", "mean_reward", "max_reward", "reward", "reward_std", "frac_reward_zero_std",
    "cispo_clip_ratio",
)  # fmt: skip
#: What is measured here.
MEASURED = ("tokens_per_second", "supervised_tokens", "total_tokens", "peak_memory_bytes")


class MetricsCallback(TrainerCallback):
    """Logs on rank 0: loss in nats per supervised token, speed since the last line, totals, peak memory in bytes."""

    def __init__(self, folder: Path, tokens: TokenCounter) -> None:
        self._folder = folder
        self._tokens = tokens
        self._writer = MetricsWriter(folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; cut the file back to the checkpoint of a resumed run."""
        self._tokens.start_lap()
        if state.is_world_process_zero:
            self._writer.cut_back(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Log the last step too, whatever the interval."""
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line; `logs` gains what was measured here, for the callbacks that follow."""
        if logs is None or not ("loss" in logs or "eval_loss" in logs):
            return
        if "loss" in logs:
            logs.update(self._measure())
        record = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 6)}
        record |= {name: value for name, value in logs.items() if is_kept(name)}
        if state.is_world_process_zero:
            self._writer.write(record)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave the time of the evaluation out of the next speed."""
        self._tokens.start_lap()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take transformers' pickle out of the checkpoint."""
        if state.is_world_process_zero:
            remove_pickles(self._folder)

    def _measure(self) -> dict[str, float]:
        lap, counts = self._tokens.end_lap(), self._tokens.read()
        return {
            "tokens_per_second": round(lap.real / lap.seconds, 2),
            "supervised_tokens": counts.supervised,
            "total_tokens": counts.real,
            "peak_memory_bytes": peak_memory_bytes(),
        }


def is_kept(name: str) -> bool:
    """Whether a logged value goes into metrics.jsonl."""
    return name in KEPT or name in MEASURED or "/" in name or name.removeprefix("eval_") in KEPT_OF_TRL


def peak_memory_bytes() -> int:
    """Most memory allocated so far: on the GPU by torch, on a CPU by the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    import resource  # POSIX only, as is training on a CPU here

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024
