"""What the trainers of TRL do otherwise in a run: our samples, no second adapter, metrics that survive a resume."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset as TableDataset
from loguru import logger
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainingArguments

from component.data.samples import Samples
from component.trainers.arguments import build_training_arguments
from component.trainers.liger import choose_liger
from component.trainers.reference import real_reference, renew_frozen_copy, save_policy_alone
from component.trainers.run_trainer import RunTrainer, run_callbacks

if TYPE_CHECKING:
    from component.config.schema import TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel
    from component.trainers.task import RunContext

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
        self._eval_sizes: list[dict[str, int]] = []
        trained = [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(
            model=model,
            train_dataset=self._given(train_dataset),
            eval_dataset=None if eval_dataset is None else self._given(eval_dataset),
            **kwargs,
        )
        if hasattr(self, "ref_model"):
            self.ref_model = real_reference(self.ref_model)
        # TRL rounds the adapter of a 4-bit model to bfloat16, where small updates would be lost.
        for parameter, data in trained:
            if parameter.dtype != data.dtype:
                parameter.data = data
        renew_frozen_copy(model)
        save_policy_alone(model)

    def _given(self, dataset: Any) -> Any:
        """What TRL is given for a dataset: it looks for images in the first row, and then asks _prepare_dataset."""
        return TableDataset.from_dict({"row": [0]})

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Changed: the samples are ours, tokenized and cut by our own rules."""
        return self._datasets[dataset_name]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Changed: TRL would write a README.md into the run folder at every checkpoint."""

    def _send_telemetry(self) -> None:
        """Changed: nothing is sent."""

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Changed: remembers the size of the batch, for the means over the whole evaluation set."""
        self._eval_sizes.append(self._sizes(inputs))
        with self.compute_loss_context_manager():  # not all of TRL's trainers evaluate in the format they train in
            return super().prediction_step(model, inputs, *args, **kwargs)

    def reference_parts(self, batches: Iterable[dict[str, Tensor]], what: str) -> list[Any]:
        """What TRL's `compute_ref_log_probs` gives for each batch, in the number format that training computes in."""
        logger.info(f"computing the reference's log-probabilities of {what}")
        self.ref_model = real_reference(self.ref_model)
        model = self.ref_model or self.model
        self.model.eval()
        with self.compute_loss_context_manager():
            parts = [self.compute_ref_log_probs(model, self._prepare_inputs(batch)) for batch in batches]
        self.model.train()
        return parts

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Changed: an evaluation's metrics are means over its rows; TRL's are over batches, of which one is smaller."""
        if not self.model.training:
            self._metrics["eval"].update(self._eval_means())
            self._eval_sizes = []
        super().log(logs, *args, **kwargs)

    def _eval_means(self) -> dict[str, list[float]]:
        """Each metric of the evaluation as one mean over its rows; a batch that has none of them logged nothing."""
        means = {}
        for name, values in self._metrics["eval"].items():
            sizes = [size for size in (self._weight(name, batch) for batch in self._eval_sizes) if size]
            if len(values) == len(sizes):
                means[name] = [sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)]
        return means

    def _weight(self, name: str, batch: Mapping[str, int]) -> int:
        """Rows of an evaluation batch that a metric is the mean of."""
        return batch["rows"]

    def _sizes(self, inputs: Mapping[str, Tensor]) -> dict[str, int]:
        """What is remembered of an evaluation batch."""
        return {"rows": next(len(value) for value in inputs.values() if isinstance(value, Tensor))}

    def _mark_counts(self) -> Callable[[], None]:
        """Changed: TRL gathers metrics in every micro-batch."""
        window = {name: list(values) for name, values in self._metrics["train"].items()}

        def rewind() -> None:
            """Forget what a failed step has gathered."""
            self._metrics["train"] = defaultdict(list, window)
            self._metrics["eval"].clear()
            self._eval_sizes = []

        return rewind

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


def build_trl_arguments(
    training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments], **own: Any
) -> TrainingArguments:
    """Arguments of one of TRL's trainers.

    Args:
        arguments_class: trl's class of them, or what Unsloth has put in its place.
        own: every argument that this class adds and that matters: Unsloth replaces their defaults.
    """
    liger = choose_liger(
        training.use_liger_kernel,
        task_type=training.task_type,
        loader=context.loader,
        hardware=context.hardware,
        model_type="",  # it decides over auto alone, which is not for these tasks
        is_tiled=context.has_tiled_mlp,
    )
    context.notices.extend(liger.notices())
    return build_training_arguments(
        training,
        context,
        arguments_class,
        use_liger_kernel=liger.got,
        # TRL switches checkpointing off for a reference, and on again with these.
        gradient_checkpointing_kwargs={
            name: value for name, value in training.gradient_checkpointing_kwargs.items() if name != "offload"
        },
        remove_unused_columns=False,  # the collators read what no forward pass has an argument for
        **own,
    )


def trainer_inputs(
    build_dataset: Callable[[Samples], Dataset[Any]],
    training: TrainingSection,
    model: LoadedModel,
    data: PreparedData,
    context: RunContext,
) -> dict[str, Any]:
    """What each of TRL's trainers is given of a run; a task adds `args`, `data_collator` and what else it has.

    Args:
        build_dataset: makes the torch dataset that the task's collator reads.
    """
    return {
        "model": model.model,
        "train_dataset": build_dataset(data.train),
        "eval_dataset": build_dataset(data.evaluation) if data.evaluation else None,
        "processing_class": model.tokenizer,
        "tokens": context.tokens,
        "callbacks": run_callbacks(training, context),
    }
