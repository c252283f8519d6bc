"""Sampled completions with their rewards: completions.jsonl, and one of them in the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.artifacts.metrics import MetricsWriter

FILE_NAME = "completions.jsonl"
#: Logged lines without any difference of rewards after which the log says so.
PATIENCE = 3


class CompletionsCallback(TrainerCallback):
    """Writes some completions of the latest batch at each logged step and each evaluation; rank 0 only.

    Args:
        num_completions: of a step.
    """

    def __init__(self, folder: Path, num_completions: int) -> None:
        self._num_completions = num_completions
        self._writer = MetricsWriter(folder, FILE_NAME)
        self._latest: Sequence[Mapping[str, Any]] = ()
        self._lines_without_signal = 0

    def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take the completions of a batch: source, prompt, completion, rewards, advantage, split."""
        self._latest = records[: self._num_completions]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Cut the file back to the checkpoint of a resumed run."""
        if state.is_world_process_zero:
            self._writer.cut_back(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write what was kept since the last line; the end of training is none."""
        if logs is None or not ("loss" in logs or "eval_loss" in logs):
            return
        records, self._latest = self._latest, ()
        if not state.is_world_process_zero:
            return
        self._look_for_signal(logs)
        for record in records:
            self._writer.write({"step": state.global_step, **record})
        for record in records[:1]:
            rewards = "  ".join(f"{name} {value}" for name, value in record["rewards"].items())
            logger.info(f"{record['source']} {record['completion']!r}  {rewards}")

    def _look_for_signal(self, logs: Mapping[str, Any]) -> None:
        """Warn, once in a row, where all completions of each prompt are rewarded alike: then nothing is learned."""
        if "frac_reward_zero_std" not in logs:
            return
        self._lines_without_signal = self._lines_without_signal + 1 if logs["frac_reward_zero_std"] == 1 else 0
        if self._lines_without_signal == PATIENCE:
            logger.warning(
                f"the last {PATIENCE} logged lines have no prompt whose completions differ in reward, and nothing is "
                "learned from those; use rewards that also tell apart what is nearly right, easier or harder prompts, "
                "more num_generations or a higher temperature"
            )
