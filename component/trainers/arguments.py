"""transformers' TrainingArguments from the training section, every field passed explicitly."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from component.config.errors import UserError
from component.config.keys import ADAPTER_MODES
from component.config.schema import TrainingSection
from component.trainers.group_rates import GroupRates

if TYPE_CHECKING:
    from component.trainers.task import RunContext

#: Keys of the section that are not transformers' arguments, or that this module sets itself.
OWN_KEYS = frozenset(
    {
        "task_type",
        "train_mode",
        "bf16",
        "fp16",
        "disable_tqdm",
        "early_stopping_patience",
        "early_stopping_threshold",
        "extra_training_args",
        "group_by_length",
        "loss_chunk_tokens",
        "max_seq_length",
        "packing",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "global_batch_size",
        "max_memory_gib",
        "use_cpu",
        "use_liger_kernel",
        "loraplus_lr_ratio",
        "embedding_learning_rate",
    }
)


def build_training_arguments(
    training: TrainingSection,
    context: RunContext,
    arguments_class: type[TrainingArguments] = TrainingArguments,
    **own: Any,
) -> TrainingArguments:
    """Translate the section.

    Every argument is passed: Unsloth replaces the defaults of these classes. Four differ from transformers' own: NaN
    and infinite losses are logged as they are, the progress bar is ours, the loaders switch checkpointing on, and the
    host does not wait for batches to reach the device.

    Args:
        arguments_class: TrainingArguments or a trainer's own subclass.
        own: arguments of that subclass, and others that the trainer needs otherwise than in the section.

    Raises:
        UserError: transformers refuses a value or a combination.
    """
    extra = dict(training.extra_training_args)
    passed: dict[str, Any] = {
        item.name: getattr(training, item.name) for item in fields(training) if item.name not in OWN_KEYS
    }
    for name in ("fsdp_config", "lr_scheduler_kwargs", "fsdp", "deepspeed"):
        passed[name] = passed[name] or None
    # Without it each batch's copy to the device waits for all work before it, though its memory is page-locked.
    can_go_on = training.dataloader_pin_memory and context.hardware.kind == "cuda"
    own_accelerator = extra.pop("accelerator_config", None) or {}
    if isinstance(own_accelerator, dict):
        own_accelerator = {"non_blocking": can_go_on, **own_accelerator}
    passed["accelerator_config"] = own_accelerator
    passed["use_liger_kernel"] = training.use_liger_kernel is True
    if training.train_mode in ADAPTER_MODES and training.ddp_find_unused_parameters is None:
        passed["ddp_find_unused_parameters"] = False  # experts get no adapter, so that each is used in every step
    if context.hardware.kind == "cpu":
        passed["deepspeed"] = None  # said in a notice; transformers would want the package, which needs a GPU
    try:
        arguments = arguments_class(
            output_dir=str(context.output_dir),
            bf16=context.precision.bf16,
            fp16=context.precision.fp16,
            use_cpu=context.hardware.kind == "cpu",
            gradient_checkpointing=False,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            **passed | own,
            **extra,
        )
    except (ValueError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"transformers refuses the training arguments: {reason}; correct or drop that setting"
        ) from error
    # The trainer's own, at hand wherever it is built; they are no fields, and no checkpoint holds them.
    arguments.group_rates = GroupRates(training.loraplus_lr_ratio, training.embedding_learning_rate)
    return arguments
