"""Every key that a train_args file may hold: its type, default, meaning, limits, and who reads it.

The flat namespace of a config splits into the frozen sections below, and each builder takes only its own. This module
is the only home of defaults; where None stands for a default that depends on other keys, `component.config.rules`
resolves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from omegaconf import MISSING

MODES = ("full", "lora", "qlora")
ADAPTER_MODES = ("lora", "qlora")
PREFERENCE_TASKS = ("dpo", "orpo", "kto")
LANGUAGE_MODEL_TASKS = ("pretrain", "sft")
SHIPPED_TASKS = (*LANGUAGE_MODEL_TASKS, *PREFERENCE_TASKS, "reward", "grpo")

MAX_SEED = 2**32 - 1
"""The largest seed that numpy takes."""


def key(
    default: Any,
    help: str,
    *,
    tasks: tuple[str, ...] | None = None,
    modes: tuple[str, ...] | None = None,
    loaders: tuple[str, ...] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    default_by_mode: Mapping[str, Any] | None = None,
    default_note: str = "",
    one_or_many: bool = False,
    path: bool = False,
    cosmetic: bool = False,
    reserved: bool = False,
) -> Any:
    """Declare a key.

    Args:
        default: the value when no layer sets it; MISSING makes the key mandatory.
        help: one sentence for the reference page and for editors.
        tasks, modes, loaders: who reads it; None means all. Set elsewhere, it is a recorded notice.
        minimum, above, maximum, below: inclusive and exclusive limits of a number.
        default_by_mode: the default for each `train_mode`, for keys whose default is None.
        default_note: how a None default is completed, for the reference page.
        one_or_many: a single text is accepted for a list.
        path: names a file or folder, relative to the working directory.
        cosmetic: does not change what is trained; a run may be resumed with another value.
        reserved: accepted for a task that is still to come; nothing reads it yet.
    """
    metadata = {
        "help": help,
        "tasks": tasks,
        "modes": modes,
        "loaders": loaders,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "below": below,
        "default_by_mode": default_by_mode,
        "default_note": default_note,
        "one_or_many": one_or_many,
        "path": path,
        "cosmetic": cosmetic,
        "reserved": reserved,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TaskKeys:
    """What is trained and how; shared by the sections that depend on it."""

    task_type: str = key("sft", "The training type.")
    train_mode: Literal["full", "lora", "qlora"] = key(
        "qlora", "All parameters, a LoRA adapter on 16-bit weights, or a LoRA adapter on 4-bit weights."
    )
    seed: int = key(42, "Seed of adapter initialisation, data order, splits and dropout.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class SequenceKeys:
    """The length limit, shared by data and model."""

    max_seq_length: int = key(2048, "Longest sample in tokens.", above=0)


@dataclass(frozen=True)
class PrecisionKeys:
    """The number format of training, shared by model and training arguments."""

    bf16: bool | None = key(None, "Train in bfloat16.", default_note="where the hardware is fast at it")
    fp16: bool | None = key(
        None, "Train in float16 with loss scaling; becomes float32 on a CPU.", default_note="on a GPU without bfloat16"
    )
    gradient_checkpointing: bool = key(True, "Recompute activations in the backward pass to save memory.")


@dataclass(frozen=True)
class ModelSection(TaskKeys, SequenceKeys, PrecisionKeys):
    """Which model is loaded, by whom and in what form."""

    model_name_or_path: str = key(MISSING, "Hub id or local folder of the model; a run folder works too.")
    model_revision: str | None = key(None, "Branch, tag or commit of a hub model.")
    tokenizer_name_or_path: str | None = key(None, "Tokenizer, where it is not the model's own.")
    trust_remote_code: bool = key(False, "Allow Python code that a hub model brings.")
    use_unsloth: bool | Literal["auto", "require"] = key(
        False,
        "Load through Unsloth: false, true (else fall back to vanilla), auto (where it helps), require (or stop).",
    )
    model_loader: str | None = key(
        None, "Loader by its name, for one of your own in plugins.", default_note="use_unsloth decides"
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = key(
        "auto",
        "Number format of the loaded weights; auto follows fp16/bf16, and keeps float32 masters for full training.",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = key(
        "auto", "Attention implementation; auto probes what works here.", loaders=("vanilla",)
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = key("nf4", "4-bit number format of the frozen base.", modes=("qlora",))
    bnb_4bit_use_double_quant: bool = key(True, "Quantize the quantization constants as well.", modes=("qlora",))
    hub_token: str | None = key(
        None, "Access token for private models; only as an interpolation such as ${oc.env:HF_TOKEN}.", cosmetic=True
    )
    hub_endpoint: str | None = key(None, "Address of a mirror of the model hub.", cosmetic=True)
    offline: bool = key(False, "Use local files and the local hub cache only.", cosmetic=True)


@dataclass(frozen=True)
class AdapterSection(TaskKeys):
    """The LoRA adapter (https://arxiv.org/abs/2106.09685)."""

    lora_rank: int = key(64, "Rank of the adapter matrices.", modes=ADAPTER_MODES, above=0)
    lora_alpha: int = key(
        16, "Scale of the adapter: its output counts lora_alpha / lora_rank.", modes=ADAPTER_MODES, above=0
    )
    lora_dropout: float = key(
        0.0,
        "Dropout on the adapter's input; above 0 costs Unsloth's fused kernels.",
        modes=ADAPTER_MODES,
        minimum=0,
        below=1,
    )
    lora_target_modules: list[str] = key(
        ["all-linear"],
        "Names of the linear layers that get an adapter; all-linear takes all of the language model except its head.",
        modes=ADAPTER_MODES,
        one_or_many=True,
    )


@dataclass(frozen=True)
class DataSection(TaskKeys, SequenceKeys):
    """Which files are read and how rows become tokens."""

    train_file: list[str] = key(
        MISSING,
        "Training data: a file, a folder, a glob, a web address, a dataset of the hub "
        "(hub:owner/name?config=...&split=...&revision=...), or a list of them.",
        one_or_many=True,
        path=True,
    )
    eval_file: list[str] | None = key(None, "Evaluation data, like train_file.", one_or_many=True, path=True)
    eval_split: float | None = key(
        None, "Share (below 1) or number of training rows that are held out for evaluation.", above=0
    )
    mixture_weights: list[float] | None = key(
        None,
        "Shares of the entries of train_file: their rows are interleaved, none is repeated, and of entries with more "
        "rows than their share the seed chooses some.",
        default_note="all rows, entry after entry",
    )
    max_samples: int | list[int] | None = key(
        None,
        "Usable rows that are read of each entry of train_file at most, the first ones; one number, or one an entry.",
        above=0,
        default_note="all",
    )
    data_format: str = key("auto", "Format of the rows; auto detects it from the first ones.")
    columns: dict[str, str] = key(
        {}, 'Columns with other names: the name in the files -> the name that the format reads ({"query": "question"}).'
    )
    template_name: str = key(
        "auto",
        "Chat template: the tokenizer's own (auto), a .jinja file, or a named one for base models.",
        tasks=("sft", "dpo", "orpo", "kto", "reward", "grpo"),
    )
    chat_template_kwargs: dict[str, Any] = key(
        {},
        "Arguments for the chat template, such as enable_thinking.",
        tasks=("sft", "dpo", "orpo", "kto", "reward", "grpo"),
    )
    template_date: str | None = key(
        None,
        "Date (YYYY-MM-DD) that a chat template shows where it asks for today's.",
        tasks=("sft", "dpo", "orpo", "kto", "reward", "grpo"),
        default_note="the day of the run's first attempt",
        cosmetic=True,
    )
    append_stop_token: bool = key(
        False, "Append the tokenizer's EOS to answers where the template emits no stop token.", tasks=("sft",)
    )
    train_on_prompt: bool = key(False, "Learn all tokens of a row, not its answers alone.", tasks=("sft",))
    train_on: Literal["all", "last"] = key(
        "all", "Learn all answers of a conversation, or its last one; an answer of weight 0 never.", tasks=("sft",)
    )
    default_system: str | None = key(
        None,
        "System text of conversations that have no system message.",
        tasks=("sft", "dpo", "orpo", "kto", "reward", "grpo"),
        default_note="what the chat template does then",
    )
    content_control_tokens: Literal["text", "control", "reject"] = key(
        "text",
        "A control token that a message's own text spells out: plain text, the control token, or a reason to reject.",
        tasks=("sft", "dpo", "orpo", "kto", "reward", "grpo"),
    )
    truncation: Literal["drop", "keep_start", "keep_end", "error", "split_turns"] = key(
        "drop",
        "What happens to a row longer than max_seq_length: dropped (and counted as a bad row), cut to its first or "
        "last tokens, an error, or split between turns into several samples that each begin with the system message.",
        tasks=("sft",),
    )
    max_bad_rows: float = key(
        0.01, "Share of rows that may be dropped before the run stops; 1.0 never stops.", minimum=0, maximum=1
    )
    tokenize_num_workers: int | None = key(
        None, "Threads of the tokenizer.", above=0, cosmetic=True, default_note="all cores"
    )


@dataclass(frozen=True)
class PreferenceSection:
    """Keys of preference tasks, accepted so that existing configs pass the check; their tasks are still to come."""

    beta: float = key(
        0.1, "Strength of the pull towards the reference model.", tasks=PREFERENCE_TASKS, minimum=0, reserved=True
    )
    max_prompt_length: int = key(512, "Longest prompt in tokens.", tasks=PREFERENCE_TASKS, above=0, reserved=True)


@dataclass(frozen=True)
class GenerationSection:
    """Sample answers at evaluations; the section of the sft task."""

    num_eval_generations: int = key(
        0,
        "How many evaluation prompts are answered and logged at each evaluation.",
        tasks=("sft",),
        minimum=0,
        cosmetic=True,
    )
    generation_max_new_tokens: int = key(
        128, "Longest sampled answer in tokens.", tasks=("sft",), above=0, cosmetic=True
    )


@dataclass(frozen=True)
class RunSection:
    """The run as an artifact: where it goes, and what of the user's own takes part."""

    output_dir: str = key("", "Folder of the run.", default_note="output/<config path>", path=True, cosmetic=True)
    plugins: list[str] = key([], "Python files that register components of your own.", one_or_many=True, path=True)


@dataclass(frozen=True)
class TrainingSection(TaskKeys, SequenceKeys, PrecisionKeys):
    """Which rows make a batch, and arguments of transformers' Trainer and its early stopping, under their own names."""

    packing: bool | Literal["auto"] = key(
        False,
        "Fill rows of max_seq_length tokens with several samples that do not see each other; each row counts as one in "
        "batch sizes, so a step learns from more samples. auto: where the model keeps them apart, true: or stop. "
        "Evaluation is never packed.",
        tasks=LANGUAGE_MODEL_TASKS,
    )
    group_by_length: bool = key(
        True,
        "Without packing, train on samples of similar length together, which cuts padding.",
        tasks=LANGUAGE_MODEL_TASKS,
    )
    per_device_train_batch_size: int = key(
        4, "Rows in a micro-batch on one device; with packing, a row holds several samples.", above=0
    )
    per_device_eval_batch_size: int | None = key(
        None, "Rows in an evaluation batch on one device.", above=0, default_note="per_device_train_batch_size"
    )
    gradient_accumulation_steps: int = key(4, "Micro-batches in one optimizer step.", above=0)
    num_train_epochs: float = key(1.0, "Passes over the training data.", above=0)
    max_steps: int = key(-1, "Optimizer steps; -1 lets num_train_epochs decide.", minimum=-1)
    learning_rate: float | None = key(
        None, "Peak learning rate.", minimum=0, default_by_mode={"full": 1e-5, "lora": 2e-4, "qlora": 2e-4}
    )
    lr_scheduler_type: str = key("cosine", "Learning rate schedule.")
    lr_scheduler_kwargs: dict[str, Any] = key({}, "Further arguments of the schedule, such as min_lr_rate.")
    warmup_steps: float = key(0.03, "Warm-up steps; below 1, their share of all steps.", minimum=0)
    optim: str = key("adamw_torch_fused", "Optimizer, by transformers' name.")
    optim_args: str | None = key(None, "Further arguments of the optimizer, as transformers takes them.")
    weight_decay: float = key(0.0, "Weight decay.", minimum=0)
    adam_beta1: float = key(0.9, "Decay of Adam's first moment.", minimum=0, below=1)
    adam_beta2: float = key(0.999, "Decay of Adam's second moment.", minimum=0, below=1)
    adam_epsilon: float = key(1e-8, "Adam's epsilon.", above=0)
    max_grad_norm: float = key(1.0, "Gradients are clipped to this norm; 0 does not clip.", minimum=0)
    neftune_noise_alpha: float | None = key(None, "Noise on embeddings (https://arxiv.org/abs/2310.05914).", above=0)
    gradient_checkpointing_kwargs: dict[str, Any] = key(
        {"use_reentrant": False}, "Arguments of torch.utils.checkpoint.", loaders=("vanilla",)
    )
    tf32: bool | None = key(None, "TensorFloat-32 for float32 matrix products on Ampere and newer.")
    torch_compile: bool = key(False, "Compile the model with torch.compile.", loaders=("vanilla",))
    torch_empty_cache_steps: int | None = key(None, "Empty the device's cache every so many steps.", above=0)
    use_liger_kernel: bool = key(False, "Liger's fused kernels on the vanilla loader.", loaders=("vanilla",))
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
        None, "DistributedDataParallel's find_unused_parameters.", cosmetic=True
    )
    ddp_timeout: int = key(1800, "Seconds before a collective operation fails.", above=0, cosmetic=True)
    ddp_backend: str | None = key(None, "Backend of torch.distributed.", cosmetic=True)
    deepspeed: str | None = key(None, "DeepSpeed config file.", path=True)
    fsdp: str | None = key(None, "Fully Sharded Data Parallel options, as transformers takes them.")
    fsdp_config: dict[str, Any] = key({}, "Details of Fully Sharded Data Parallel.")
    extra_training_args: dict[str, Any] = key(
        {}, "Any further argument of the installed transformers' TrainingArguments, by its name."
    )


SECTIONS: dict[str, type] = {
    "model": ModelSection,
    "adapter": AdapterSection,
    "data": DataSection,
    "preference": PreferenceSection,
    "generation": GenerationSection,
    "run": RunSection,
    "training": TrainingSection,
}

#: Keys of a file that are about the file itself.
FILE_KEYS = ("base", "$schema")


def schema_fields() -> dict[str, Any]:
    """Every key with its dataclass field, in the order of the sections; a shared key appears once."""
    return {item.name: item for section in SECTIONS.values() for item in fields(section)}
