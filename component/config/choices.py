"""Names that values may have, for the keys whose type is just text.

Those of transformers are written down, rather than read from the package, so that `--check` works where only omegaconf
is installed; a test compares them with the installed package.
"""

from __future__ import annotations

from collections.abc import Mapping

from component.registry import FORMATS, LOADERS, TASKS, TEMPLATE_NAMES

#: transformers 5.17, `OptimizerNames`.
OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adafactor",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "sgd",
    "adagrad",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "apollo_adamw",
    "apollo_adamw_layerwise",
    "stable_adamw",
)

#: Of these, what transformers gives nothing of `optim_args`; both that `auto` may become are among them.
WITHOUT_ARGUMENTS = (
    "auto", "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor",
    "adamw_bnb_8bit", "adamw_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "paged_lion_32bit", "paged_lion_8bit", "lomo", "adalomo",
)  # fmt: skip

#: transformers 5.17, `SchedulerType`.
SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)

#: trl 1.13: task -> the losses that its trainer has.
LOSSES = {
    "dpo": (
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
        "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "grpo": ("dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "cpo": ("sigmoid", "hinge", "ipo", "simpo", "alphapo"),
}  # fmt: skip
#: Task -> its losses that label_smoothing changes.
SMOOTHED_LOSSES = {"dpo": ("exo_pair", "robust", "aot", "aot_unpaired"), "cpo": ("sigmoid", "simpo", "alphapo")}
#: Losses of cpo that aim at a margin, and those that compare means over tokens where the others compare sums.
MARGIN_LOSSES = ("simpo", "alphapo")
MEAN_LOSSES = ("ipo", *MARGIN_LOSSES)
#: Losses of dpo that are a function of the difference of both rewards, which other f-divergences are defined for.
DIVERGENCE_LOSSES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")

#: What an evaluation measures -> the tasks that measure it; None stands for all.
METRICS: Mapping[str, tuple[str, ...] | None] = {
    "eval_loss": None,
    "loss": None,
    "eval_perplexity": ("pretrain", "sft"),
    "eval_rewards/accuracies": ("dpo", "orpo", "cpo"),
    "eval_rewards/margins": ("dpo", "orpo", "cpo", "kto"),
    "eval_accuracy": ("reward",),
    "eval_margin": ("reward",),
    "eval_reward": ("grpo",),
}

#: transformers 5.17, integrations that a Trainer can report to, with the package each needs.
REPORTERS = {
    "none": "",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "swanlab": "swanlab",
    "mlflow": "mlflow",
    "trackio": "trackio",
}

#: Keys that hints are about; `component.config.hints` and `component.pipeline.hints` give them.
HINT_KEYS = (
    "beta",
    "desirable_weight",
    "eval_file",
    "eval_split",
    "eval_steps",
    "fp16",
    "learning_rate",
    "load_best_model_at_end",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "max_grad_norm",
    "max_seq_length",
    "num_generations",
    "num_train_epochs",
    "packing",
    "per_device_train_batch_size",
    "template_name",
    "use_dora",
    "warmup_steps",
)


def named_choices() -> dict[str, tuple[str, ...]]:
    """Key -> the names it may hold, those that plugins have registered included."""
    return {
        "task_type": TASKS.names(),
        "model_loader": LOADERS.names(),
        "data_format": ("auto", *FORMATS.names()),
        "template_name": ("auto", *TEMPLATE_NAMES),
        "optim": ("auto", *OPTIMIZERS),
        "lr_scheduler_type": SCHEDULERS,
        "report_to": tuple(REPORTERS),
        "metric_for_best_model": tuple(METRICS),
        "accepted_hints": HINT_KEYS,
    }
