"""The section of training: batches, and arguments of the Trainer under their own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from component.config.keys import ADAPTER_MODES, LANGUAGE_MODEL_TASKS, MAX_SEED, MODES, key
from component.config.sections.shared import (
    LossMemoryKeys,
    PackingKeys,
    PrecisionKeys,
    SequenceKeys,
    ShardingKeys,
    TaskKeys,
)
from component.config.usual import LEARNING_RATES


@dataclass(frozen=True)
class TrainingSection(TaskKeys, SequenceKeys, PrecisionKeys, PackingKeys, LossMemoryKeys, ShardingKeys):
    """Which rows make a batch, and arguments of transformers' Trainer and its early stopping, under their own names."""

    group_by_length: bool = key(
        True,
        "Without packing, train on samples of similar length together, which cuts padding.",
        tasks=LANGUAGE_MODEL_TASKS,
    )
    per_device_train_batch_size: int | Literal["auto"] = key(
        4,
        "Rows in a micro-batch on one device; with packing, a row holds several samples. auto: as many as make the "
        "fastest step that fits the device, the most that fit where its speed is not known, as on a CPU; the rows of a "
        "step stay as global_batch_size says.",
        above=0,
        memory=True,
    )
    per_device_eval_batch_size: int | None = key(
        None,
        "Rows in an evaluation batch on one device.",
        above=0,
        default_note="per_device_train_batch_size",
        memory=True,
    )
    gradient_accumulation_steps: int | None = key(
        None,
        "Micro-batches in one optimizer step.",
        above=0,
        default_note="what global_batch_size leaves to it where that is set, else 4",
        memory=True,
    )
    global_batch_size: int | None = key(
        None,
        "Rows of one optimizer step over all devices; sets gradient_accumulation_steps, and wins over one in a base.",
        above=0,
        default_note="with per_device_train_batch_size: auto 16, else what the other two keys make",
        memory=True,
    )
    max_memory_gib: float | None = key(
        None,
        "Most memory that the run may take on its GPU, in GiB, what CUDA itself takes included; plans and auto "
        "reckon with it. On a CPU they alone do.",
        above=0,
        default_note="all of the device",
        memory=True,
    )
    num_train_epochs: float = key(1.0, "Passes over the training data.", above=0)
    max_steps: int = key(-1, "Optimizer steps; -1 lets num_train_epochs decide.", minimum=-1)
    learning_rate: float | None = key(
        None,
        "Peak learning rate.",
        minimum=0,
        default_by_mode={
            task: {mode: rates.of(mode).usual for mode in MODES} for task, rates in LEARNING_RATES.items()
        },
    )
    loraplus_lr_ratio: float | None = key(
        None,
        "Learning rate of the adapter's second matrices, in times that of the first "
        "(https://arxiv.org/abs/2402.12354).",
        modes=ADAPTER_MODES,
        minimum=1,
        default_note="1",
    )
    embedding_learning_rate: float | None = key(
        None,
        "Peak learning rate of embeddings and output head, where these are trained.",
        minimum=0,
        default_note="learning_rate",
    )
    lr_scheduler_type: str = key("cosine", "Learning rate schedule.")
    lr_scheduler_kwargs: dict[str, Any] = key({}, "Further arguments of the schedule, such as min_lr_rate.")
    warmup_steps: float = key(0.03, "Warm-up steps; below 1, their share of all steps.", minimum=0)
    optim: str = key(
        "adamw_torch_fused",
        "Optimizer, by transformers' name. auto: AdamW in float32; adamw_torch_fused where its states fit the device "
        "or are shared out by DeepSpeed or FSDP, else paged_adamw_32bit, whose states can leave it.",
    )
    optim_args: str | None = key(
        None, "Further arguments of an optimizer that takes some, such as momentum=0.9 of sgd."
    )
    weight_decay: float = key(0.0, "Weight decay.", minimum=0)
    adam_beta1: float = key(0.9, "Decay of Adam's first moment.", minimum=0, below=1)
    adam_beta2: float = key(0.999, "Decay of Adam's second moment.", minimum=0, below=1)
    adam_epsilon: float = key(1e-8, "Adam's epsilon.", above=0)
    max_grad_norm: float = key(1.0, "Gradients are clipped to this norm; 0 does not clip.", minimum=0)
    neftune_noise_alpha: float | None = key(None, "Noise on embeddings (https://arxiv.org/abs/2310.05914).", above=0)
    gradient_checkpointing_kwargs: dict[str, Any] = key(
        {"use_reentrant": False},
        "Arguments of torch.utils.checkpoint: use_reentrant, preserve_rng_state, early_stop, debug, determinism_check; "
        "offload: true keeps what is recomputed from in main memory.",
        loaders=("vanilla",),
        memory=True,
    )
    tf32: bool | None = key(None, "TensorFloat-32 for float32 matrix products on Ampere and newer.")
    torch_compile: bool = key(False, "Compile the model with torch.compile.", loaders=("vanilla",))
    torch_empty_cache_steps: int | None = key(None, "Empty the device's cache every so many steps.", above=0)
    use_liger_kernel: bool | Literal["auto"] = key(
        False,
        "Liger's fused kernels on the vanilla loader; auto: for next-token tasks, where they are installed, on an "
        "NVIDIA GPU, and know the model's family.",
        loaders=("vanilla",),
    )
    full_determinism: bool = key(False, "Deterministic kernels everywhere, at a cost in speed.")
    use_cpu: bool = key(False, "Train on the CPU although there is a GPU.")
    logging_strategy: Literal["no", "steps", "epoch"] = key("steps", "When metrics are logged.", cosmetic=True)
    logging_steps: float = key(
        10, "Steps between logged lines; below 1, their share of all steps.", above=0, cosmetic=True
    )
    logging_first_step: bool = key(True, "Log the first step too.", cosmetic=True)
    disable_tqdm: bool | None = key(None, "No progress bar.", default_note="off a terminal", cosmetic=True)
    report_to: list[str] = key(["none"], "Where metrics go beside the run folder.", one_or_many=True, cosmetic=True)
    run_name: str | None = key(None, "Name of the run in those services.", cosmetic=True)
    eval_strategy: Literal["no", "steps", "epoch"] | None = key(
        None,
        "When evaluation runs.",
        default_note="with evaluation data: steps if eval_steps is set, else epoch; without: no",
    )
    eval_steps: float | None = key(None, "Steps between evaluations; below 1, their share of all steps.", above=0)
    eval_delay: float = key(0, "Epochs or steps before the first evaluation.", minimum=0)
    eval_on_start: bool = key(False, "Evaluate once before training.")
    save_strategy: Literal["no", "steps", "epoch", "best"] = key("steps", "When checkpoints are written.")
    save_steps: float = key(500, "Steps between checkpoints; below 1, their share of all steps.", above=0)
    save_total_limit: int | None = key(None, "Checkpoints that are kept.", above=0, default_note="all", cosmetic=True)
    save_only_model: bool = key(False, "Checkpoints without optimizer state: smaller, cannot be resumed from.")
    load_best_model_at_end: bool = key(False, "End with the checkpoint of the best evaluation.")
    metric_for_best_model: str = key("eval_loss", "Metric that decides which checkpoint is best.")
    greater_is_better: bool | None = key(None, "Whether a greater metric is better.", default_note="false for a loss")
    early_stopping_patience: int | None = key(
        None, "Stop after this many evaluations without improvement of metric_for_best_model.", above=0
    )
    early_stopping_threshold: float = key(0.0, "Least change of the metric that counts as improvement.", minimum=0)
    data_seed: int | None = key(None, "Seed of the data order alone.", minimum=0, maximum=MAX_SEED, default_note="seed")
    dataloader_num_workers: int = key(0, "Processes that build batches.", minimum=0, cosmetic=True)
    dataloader_pin_memory: bool = key(True, "Page-locked host memory for batches.", cosmetic=True)
    dataloader_persistent_workers: bool = key(False, "Keep batch workers between epochs.", cosmetic=True)
    dataloader_prefetch_factor: int | None = key(None, "Batches that a worker prepares ahead.", above=0, cosmetic=True)
    dataloader_drop_last: bool = key(False, "Drop an incomplete last batch.")
    remove_unused_columns: bool = key(
        True, "Accepted; the collators only ever build what the model reads.", cosmetic=True
    )
    ddp_find_unused_parameters: bool | None = key(
        None,
        "DistributedDataParallel's find_unused_parameters.",
        cosmetic=True,
        default_note="false with an adapter; else transformers decides",
    )
    ddp_timeout: int = key(1800, "Seconds before a collective operation fails.", above=0, cosmetic=True)
    ddp_backend: str | None = key(None, "Backend of torch.distributed.", cosmetic=True)
    fsdp_config: dict[str, Any] = key({}, "Details of Fully Sharded Data Parallel.")
    extra_training_args: dict[str, Any] = key(
        {}, "Any further argument of the installed transformers' TrainingArguments, by its name."
    )
