"""What the trainers of TRL do otherwise in a run: our samples, no second adapter, metrics that survive a resume."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset as TableDataset
from torch import Tensor, nn

from component.trainers.run_trainer import RunTrainer

#: Of a checkpoint: metrics since the last logged line.
WINDOW_FILE = "metrics_window.json"


class TRLTrainer(RunTrainer):
    """Stands before one of TRL's trainers in the bases of a task's trainer.

    Args:
        model: ready to train, with its adapter.
        train_dataset, eval_dataset: torch datasets of prepared samples; TRL tokenizes nothing.
    """

    def __init__(self, *, model: nn.Module, train_dataset: Any, eval_dataset: Any = None, **kwargs: Any) -> None:
        self._datasets = {"train": train_dataset, "eval": eval_dataset}
        self._num_eval_rows: list[int] = []
        trained = [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]
        row = TableDataset.from_dict({"row": [0]})  # TRL looks for images in it, and no further than _prepare_dataset
        super().__init__(model=model, train_dataset=row, eval_dataset=None if eval_dataset is None else row, **kwargs)
        # TRL rounds the adapter of a 4-bit model to bfloat16, where small updates would be lost.
        for parameter, data in trained:
            if parameter.dtype != data.dtype:
                parameter.data = data

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Changed: the samples are ours, tokenized and cut by our own rules."""
        return self._datasets[dataset_name]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Changed: TRL would write a README.md into the run folder at every checkpoint."""

    def _send_telemetry(self) -> None:
        """Changed: nothing is sent."""

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Changed: remembers the size of the batch, for the means over the whole evaluation set."""
        self._num_eval_rows.append(next(len(value) for value in inputs.values() if isinstance(value, Tensor)))
        return super().prediction_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Changed: an evaluation's metrics are means over its rows; TRL's are over batches, of which one is smaller."""
        if not self.model.training:
            metrics, sizes = self._metrics["eval"], self._num_eval_rows
            for name, values in metrics.items():
                if len(values) == len(sizes):
                    weighted = sum(value * size for value, size in zip(values, sizes, strict=True))
                    metrics[name] = [weighted / sum(sizes)]
            self._num_eval_rows = []
        super().log(logs, *args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Changed: adds the metrics that are not yet logged to a checkpoint."""
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            (Path(output_dir) / WINDOW_FILE).write_text(json.dumps(self._metrics["train"]) + "\n", encoding="utf-8")

    def _run_epoch(self, **kwargs: Any) -> None:
        """Changed: a resumed run knows the metrics not yet logged."""
        checkpoint = kwargs["resume_from_checkpoint"]
        if checkpoint is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            window = json.loads((Path(checkpoint) / WINDOW_FILE).read_text(encoding="utf-8"))
            self._metrics["train"] = defaultdict(list, window)
        super()._run_epoch(**kwargs)
