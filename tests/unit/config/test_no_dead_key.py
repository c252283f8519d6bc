"""No dead key: each key of the schema is changed, and something that is built from the config is different.

A probe gives what is looked at for a value of its key; the test compares two values of the key.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("bitsandbytes")

from component.config.errors import RunError
from component.config.load import Config, load_config
from component.config.schema import schema_fields
from component.config.training_arguments_source import installed_training_arguments
from component.data.cache import Cache
from component.models.precision import resolve_precision
from component.models.preparing import offloads_embedding, offloads_head
from component.models.tiny import Shape, make_tiny_model
from component.models.unsloth_lora import wants_fused_adapters
from component.pipeline import prepare as prepare_module
from component.pipeline.batches import settle_batches
from component.pipeline.choose_loader import choose_loader
from component.pipeline.hints import check_hints
from component.pipeline.load_models import load_model, load_models
from component.pipeline.prepare import machine_notices, prepare
from component.pipeline.rendering import build_rendering
from component.pipeline.run import run
from component.pipeline.settle_run import device_room
from component.registry import TASKS
from component.runtime.hardware import Hardware
from component.trainers.arguments import build_training_arguments
from component.trainers.cpo import build_cpo_arguments
from component.trainers.dpo import build_dpo_arguments
from component.trainers.grpo import build_grpo_arguments
from component.trainers.interrupts import Interrupts
from component.trainers.kto import build_kto_arguments
from component.trainers.reward import build_reward_arguments
from component.trainers.rewards.load import load_rewards
from component.trainers.task import RunContext
from component.trainers.token_counter import TokenCounter

ROOT = Path(__file__).resolve().parents[3]
AMPERE = Hardware("cuda", "test A100", 2**36, 2**36, (8, 0), True, 1)
SHAPE = Shape(
    vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
)  # fmt: skip
NO_END = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WITH_ARGUMENT = NO_END.replace("{% if", "{{ eos_token }}{{ word }}{% if", 1).replace(
    "{{ message.content }}", "{{ word or 'none' }}{{ message.content }}{{ eos_token }}"
)
WITH_DATE = "{{ strftime_now('%d %B %Y') }}" + NO_END.replace(
    "{{ message.content }}", "{{ message.content }}{{ eos_token }}"
)


class Lab:
    """A tiny model, a few rows, and configs over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = folder / "text.txt"
        text.write_text("a short text of some words to learn\n" * 4, encoding="utf-8")
        self.model = folder / "model"
        make_tiny_model(self.model, shape=SHAPE, seed=0, texts=[text])
        self.other_model = folder / "other"
        other_text = folder / "other.txt"
        other_text.write_text("quite another lot of letters, joined in other pairs\n" * 4, encoding="utf-8")
        make_tiny_model(self.other_model, shape=SHAPE, seed=0, texts=[other_text])
        self.rows = self.write_rows("rows.jsonl", 6)
        self.templates = {}
        for name, content in {"no_end": NO_END, "argument": WITH_ARGUMENT, "date": WITH_DATE}.items():
            path = folder / f"{name}.jinja"
            path.write_text(content, encoding="utf-8")
            self.templates[name] = str(path)

    def write_rows(self, name: str, number: int, *, extra: str = "", turns: int = 1) -> str:
        path = self.folder / name
        roles = ("user", "assistant")
        rows = [
            {"messages": [{"role": role, "content": f"{role} says {index}{extra}"} for role in roles * turns]}
            for index in range(number)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def config(self, **values: Any) -> Config:
        defaults = {
            "model_name_or_path": str(self.model),
            "train_file": self.rows,
            "output_dir": str(self.folder / "out"),
            "max_seq_length": 256,
            "train_mode": "lora",
            "lora_rank": 4,
            "optim": "adamw_torch",
            "bf16": False,
        }
        return load_config({**defaults, **values})

    @cached_property
    def cpu(self) -> Hardware:
        return Hardware("cpu", "test CPU", 2**34, 2**33, None, False, 1)

    def context(self, config: Config) -> RunContext:
        Path(config.run.output_dir).mkdir(exist_ok=True)
        precision = resolve_precision(config.model, self.cpu)
        return RunContext(
            output_dir=Path(config.run.output_dir), hardware=self.cpu, precision=precision, loader="vanilla",
            stop_token_ids=(), tokens=TokenCounter(), interrupts=Interrupts(),
        )  # fmt: skip

    def passed_arguments(self, config: Config) -> dict[str, Any]:
        """What TrainingArguments is called with, by names that it has."""
        context = replace(self.context(config), hardware=AMPERE)
        passed = vars(build_training_arguments(config.training, context, SimpleNamespace))  # type: ignore[arg-type]
        del passed["group_rates"]
        assert set(passed) <= set(installed_training_arguments() or passed)
        return passed

    def loaded(self, **values: Any) -> Any:
        return load_model(prepare(self.config(**values)))

    def trainer(self, **values: Any) -> Any:
        config = self.config(**values)
        prepared = prepare(config)
        task = TASKS.get(config.model.task_type)
        return task.build(
            config.generation, config.training, load_model(prepared), prepared.data, self.context(config)
        )  # fmt: skip

    def in_new_process(self, expression: str, **values: Any) -> str:
        """Evaluate an expression over `config`, `os` and the imports below where nothing was imported before."""
        program = (
            "import json, os, sys\nfrom component.config.load import load_config\n"
            "from component.models.model_files import configure_hub, find_model, read_model_config\n"
            "from component.data.threads import set_tokenizer_threads\n"
            f"config = load_config(json.loads(sys.argv[1]))\nprint({expression})"
        )
        base = {"model_name_or_path": "org/name", "train_file": "d", "output_dir": "o"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(self.folder / "hub"), "SESAME": "open"}
        for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "RAYON_NUM_THREADS"):
            environment.pop(name, None)
        command = [sys.executable, "-c", program, json.dumps({**base, **values})]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@dataclass(frozen=True)
class Probe:
    """Two values of a key, what else must be set, and what to look at."""

    one: Any
    other: Any
    look: Callable[[Lab, Config], Any]
    beside: dict[str, Any]


def probe(one: Any, other: Any, look: Callable[[Lab, Config], Any], **beside: Any) -> Probe:
    return Probe(one, other, look, beside)


def argument(name: str) -> Callable[[Lab, Config], Any]:
    """An argument that transformers' TrainingArguments is called with."""
    return lambda lab, config: lab.passed_arguments(config)[name]


def outcome(look: Callable[[], Any]) -> Any:
    """What is returned, or the message of the refusal."""
    try:
        return look()
    except RunError as error:
        return str(error)


def data(lab: Lab, config: Config) -> Any:
    """The samples that are prepared, or why there are none."""

    def samples() -> Any:
        prepared = prepare(config).data
        parts = (prepared.train, prepared.evaluation)
        return [[(sample.input_ids, sample.spans) for sample in part] for part in parts]

    return outcome(samples)


def callback(name: str) -> Callable[[Lab, Config], Any]:
    def look(lab: Lab, config: Config) -> Any:
        trainer = lab.trainer(**{key: config.values[key] for key in config.places})
        found = [item for item in trainer.callback_handler.callbacks if name in type(item).__name__]
        return [vars(item) for item in found]

    return look


def lora(name: str) -> Callable[[Lab, Config], Any]:
    return lambda lab, config: getattr(load_model(prepare(config)).peft_config, name)


def quantization(name: str) -> Callable[[Lab, Config], Any]:
    return lambda lab, config: getattr(load_model(prepare(config)).model.config.quantization_config, name)


def answers(lab: Lab, config: Config) -> Any:
    folder = lab.folder / f"answers-{config.generation.generation_max_new_tokens}"
    settings = {key: config.values[key] for key in config.places} | {"output_dir": str(folder)}
    trainer = lab.trainer(**settings)
    folder.mkdir(exist_ok=True)
    trainer.evaluate()
    return (folder / "generations.jsonl").read_text(encoding="utf-8")


def runs_on_gpu(lab: Lab, config: Config) -> bool:
    asked: list[bool] = []
    original = prepare_module.use_one_gpu
    prepare_module.use_one_gpu = lambda: asked.append(True)  # ours, not a library's
    try:
        prepare(config)
    finally:
        prepare_module.use_one_gpu = original
    return bool(asked)


def checkpointing(lab: Lab, config: Config) -> Any:
    model = load_model(prepare(config)).model
    layer = next(module for module in model.modules() if hasattr(module, "gradient_checkpointing"))
    call = getattr(layer, "_gradient_checkpointing_func", None)
    return model.is_gradient_checkpointing, getattr(call, "keywords", None)


def got(name: str) -> Callable[[Lab, Config], Any]:
    return lambda lab, config: load_model(prepare(config)).got[name]


def remote_code(lab: Lab, config: Config) -> str:
    folder = lab.folder / "remote"
    if not folder.exists():
        make_tiny_model(folder, shape=SHAPE, seed=0, texts=[lab.folder / "text.txt"])
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        content |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
        (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
        (folder / "configuration_own.py").write_text("raise ValueError('the code ran')\n", encoding="utf-8")
    return outcome(lambda: load_model(prepare(config)))


def revision(lab: Lab, config: Config) -> str:
    repository = lab.folder / "hub" / "hub" / "models--org--name"
    for name in ("1" * 40, "2" * 40):
        snapshot = repository / "snapshots" / name
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": name}), encoding="utf-8")
    values = {"model_revision": config.model.model_revision, "offline": True}
    return lab.in_new_process("(configure_hub(config.model), read_model_config(config.model))", **values)


def hub(variable: str) -> Callable[[Lab, Config], Any]:
    def look(lab: Lab, config: Config) -> str:
        values = {key: config.written[key] for key in ("hub_token", "hub_endpoint", "offline")}
        return lab.in_new_process(f"(configure_hub(config.model), os.environ.get({variable!r}))", **values)

    return look


def threads(lab: Lab, config: Config) -> str:
    expression = "(set_tokenizer_threads(config.data.tokenize_num_workers), os.environ.get('RAYON_NUM_THREADS'))"
    return lab.in_new_process(expression, tokenize_num_workers=config.data.tokenize_num_workers)


def rendering(lab: Lab, config: Config) -> Any:
    tokenizer = prepare(lab.config()).tokenizer
    return outcome(lambda: build_rendering(config.data, tokenizer, "messages").hashes)


def batch_names(lab: Lab, config: Config) -> list[str]:
    trainer = lab.trainer(**{key: config.values[key] for key in config.places})
    return sorted(next(iter(trainer.get_train_dataloader())))


def first_order(lab: Lab, config: Config) -> list[int]:
    values = {key: config.values[key] for key in config.places}
    rows = [lab.rows, lab.write_rows("longer.jsonl", 6, extra=" longer")]
    trainer = lab.trainer(**{**values, "train_file": rows, "gradient_accumulation_steps": 1})
    return list(trainer._get_train_sampler())


def cached_files(lab: Lab, config: Config) -> list[tuple[str, ...]]:
    """What the cache of a config holds once other rows were prepared with it too."""
    values = {key: config.values[key] for key in config.places}
    values["cache_dir"] = str(lab.folder / f"cache of {config.data.cache_max_gib} GiB")
    prepare(lab.config(**values))
    gc.collect()
    prepare(lab.config(**{**values, "train_file": lab.write_rows("more.jsonl", 3, extra=" more")}))
    items = Cache(values["cache_dir"]).items()
    return sorted(item.summary.files for item in items if item.summary is not None)


def weights(lab: Lab, config: Config) -> Any:
    model = load_model(prepare(config)).model
    return [float(value.sum()) for name, value in model.named_parameters() if "lora_A" in name]


def trained_names(lab: Lab, config: Config) -> list[str]:
    model = load_model(prepare(config)).model
    return [name for name, value in model.named_parameters() if value.requires_grad]


def trainer_of(lab: Lab, config: Config) -> Any:
    return lab.trainer(**{key: config.values[key] for key in config.places})


def rates(lab: Lab, config: Config) -> list[float]:
    return [group["lr"] for group in trainer_of(lab, config).create_optimizer().param_groups]


def with_evaluation(**values: Any) -> dict[str, Any]:
    return {"eval_split": 2, **values}


OF_TRAINING_ARGUMENTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "per_device_train_batch_size": (1, 2, {}),
    "per_device_eval_batch_size": (1, 2, with_evaluation()),
    "gradient_accumulation_steps": (1, 2, {}),
    "num_train_epochs": (1, 2.5, {}),
    "max_steps": (-1, 3, {}),
    "learning_rate": (1e-4, 2e-4, {}),
    "lr_scheduler_type": ("linear", "cosine", {}),
    "lr_scheduler_kwargs": ({}, {"min_lr_rate": 0.1}, {}),
    "warmup_steps": (0, 0.1, {}),
    "optim": ("adamw_torch", "sgd", {}),
    "optim_args": (None, "momentum=0.9", {"optim": "sgd"}),
    "weight_decay": (0, 0.1, {}),
    "adam_beta1": (0.9, 0.8, {}),
    "adam_beta2": (0.9, 0.8, {}),
    "adam_epsilon": (1e-8, 1e-6, {}),
    "max_grad_norm": (1, 0, {}),
    "neftune_noise_alpha": (None, 5, {}),
    "tf32": (None, True, {}),
    "torch_compile": (False, True, {}),
    "torch_empty_cache_steps": (None, 5, {}),
    "use_liger_kernel": (False, True, {}),
    "full_determinism": (False, True, {}),
    "logging_strategy": ("steps", "epoch", {}),
    "logging_steps": (1, 2, {}),
    "logging_first_step": (True, False, {}),
    "report_to": ("none", "tensorboard", {}),
    "run_name": (None, "x", {}),
    "eval_strategy": ("no", "epoch", with_evaluation()),
    "eval_steps": (1, 2, with_evaluation()),
    "eval_delay": (0, 1, with_evaluation()),
    "eval_on_start": (False, True, with_evaluation()),
    "save_strategy": ("steps", "no", {}),
    "save_steps": (1, 2, {}),
    "save_total_limit": (None, 1, {}),
    "save_only_model": (False, True, {}),
    "load_best_model_at_end": (False, True, with_evaluation(save_strategy="epoch")),
    "metric_for_best_model": ("loss", "eval_loss", {}),
    "greater_is_better": (True, False, {}),
    "data_seed": (None, 3, {}),
    "dataloader_num_workers": (0, 1, {}),
    "dataloader_pin_memory": (True, False, {}),
    "dataloader_persistent_workers": (False, True, {"dataloader_num_workers": 1}),
    "dataloader_prefetch_factor": (None, 3, {"dataloader_num_workers": 1}),
    "dataloader_drop_last": (True, False, {}),
    "remove_unused_columns": (True, False, {}),
    "ddp_find_unused_parameters": (None, True, {}),
    "ddp_timeout": (1800, 60, {}),
    "ddp_backend": (None, "gloo", {}),
    "deepspeed": (None, "z.json", {}),
    "fsdp": (None, "full_shard", {}),
    "fsdp_config": ({}, {"a": 1}, {}),
}


def dpo(name: str, one: Any, other: Any, **beside: Any) -> Probe:
    """A setting of the dpo task that TRL knows by the same name."""

    def look(lab: Lab, config: Config) -> Any:
        context = lab.context(config)
        return vars(build_dpo_arguments(config.dpo, config.training, context, SimpleNamespace))[name]  # type: ignore[arg-type]

    return probe(one, other, look, task_type="dpo", **beside)


def kto(name: str, one: Any, other: Any) -> Probe:
    def look(lab: Lab, config: Config) -> Any:
        context = lab.context(config)
        return vars(build_kto_arguments(config.kto, config.training, context, SimpleNamespace))[name]  # type: ignore[arg-type]

    return probe(one, other, look, task_type="kto")


def cpo(name: str, one: Any, other: Any, trl_name: str | None = None, **beside: Any) -> Probe:
    def look(lab: Lab, config: Config) -> Any:
        arguments = build_cpo_arguments(config.cpo, config.training, lab.context(config), SimpleNamespace)  # type: ignore[arg-type]
        return vars(arguments)[trl_name or name]

    return probe(one, other, look, task_type="cpo", **beside)


def centring(lab: Lab, config: Config) -> Any:
    arguments = build_reward_arguments(config.reward, config.training, lab.context(config), SimpleNamespace)  # type: ignore[arg-type]
    return arguments.center_rewards_coefficient


def reference(lab: Lab, config: Config) -> str:
    return outcome(lambda: load_models(prepare(config)).reference)


OF_PREFERENCES: dict[str, Probe] = {
    "beta": dpo("beta", 0.1, 0.2),
    "loss_type": dpo("loss_type", "sigmoid", ["ipo", "sft"]),
    "loss_weights": dpo("loss_weights", None, [1, 2], loss_type=["ipo", "sft"]),
    "label_smoothing": dpo("label_smoothing", 0.1, 0.2, loss_type="robust"),
    "ld_alpha": dpo("ld_alpha", None, 0.5),
    "f_divergence_type": dpo("f_divergence_type", "reverse_kl", "forward_kl"),
    "f_alpha_divergence_coef": dpo("f_alpha_divergence_coef", 0.5, 0.6, f_divergence_type="alpha_divergence"),
    "use_weighting": dpo("use_weighting", False, True),
    "discopop_tau": dpo("discopop_tau", 0.05, 0.1, loss_type="discopop"),
    "disable_dropout": dpo("disable_dropout", True, False),
    "cpo_alpha": cpo("cpo_alpha", 1, 0),
    "simpo_gamma": cpo("simpo_gamma", 0.5, 1, loss_type="simpo"),
    "alphapo_alpha": cpo("alphapo_alpha", 0.1, 0.2, "alpha", loss_type="alphapo"),
    "center_rewards_coefficient": probe(None, 0.01, centring, task_type="reward"),
    "desirable_weight": kto("desirable_weight", 1, 2),
    "undesirable_weight": kto("undesirable_weight", 1, 2),
    "precompute_ref_log_probs": dpo("precompute_ref_log_probs", False, True),
    "reference_model_name_or_path": probe(None, "{other_model}", reference, task_type="dpo", train_file="{pairs}"),
}

GRPO: dict[str, Any] = {"task_type": "grpo", "max_completion_length": 16, "reward_functions": ["length"],
                        "num_generations": 2}  # fmt: skip


def grpo(name: str, one: Any, other: Any, **beside: Any) -> Probe:
    """A setting of the grpo task that TRL knows by the same name."""

    def look(lab: Lab, config: Config) -> Any:
        context = lab.context(config)
        return vars(build_grpo_arguments(config.grpo, config.training, context, SimpleNamespace, beta=0))[name]  # type: ignore[arg-type]

    return probe(one, other, look, **(GRPO | beside))


def rewards(lab: Lab, config: Config) -> Any:
    return [vars(reward) for reward in load_rewards(config.grpo)]


def grpo_trainer(attribute: str) -> Callable[[Lab, Config], Any]:
    """An attribute of the trainer of a config of grpo, or of its log of completions."""

    def look(lab: Lab, config: Config) -> Any:
        values = {key: config.values[key] for key in config.places}
        config = lab.config(**{**values, "train_file": str(ROOT / "data/samples/prompt_only.jsonl")})
        prepared = prepare(config)
        trainer = TASKS.get("grpo").build(
            config.grpo, config.training, load_model(prepared), prepared.data, lab.context(config)
        )
        return getattr(trainer, attribute, None) or vars(trainer._completions).get(attribute)

    return look


OF_GRPO: dict[str, Probe] = {
    "num_generations": grpo("num_generations", 2, 4),
    "steps_per_generation": grpo("steps_per_generation", 2, 8),
    "temperature": grpo("temperature", 1, 0.7),
    "top_p": grpo("top_p", 1, 0.9),
    "top_k": grpo("top_k", 0, 20),
    "min_p": grpo("min_p", None, 0.1),
    "repetition_penalty": grpo("repetition_penalty", 1, 1.1),
    "use_vllm": grpo("use_vllm", False, True),
    "vllm_gpu_memory_utilization": grpo("vllm_gpu_memory_utilization", 0.3, 0.5, use_vllm=True),
    "num_iterations": grpo("num_iterations", 1, 2),
    "epsilon": grpo("epsilon", 0.2, 0.1),
    "epsilon_high": grpo("epsilon_high", 0.2, 0.28),
    "importance_sampling_level": grpo("importance_sampling_level", "token", "sequence", loss_type="grpo"),
    "scale_rewards": grpo("scale_rewards", "group", "none"),
    "top_entropy_quantile": grpo("top_entropy_quantile", 1, 0.2),
    "max_completion_length": grpo("max_completion_length", 16, 32),
    "reward_weights": grpo("reward_weights", None, [1, 2], reward_functions=["length", "format"]),
    "reward_functions": probe(["length"], ["format"], rewards, **GRPO),
    "reward_arguments": probe({}, {"length": {"max_tokens": 9}}, rewards, **GRPO),
    "mask_truncated_completions": probe(False, True, grpo_trainer("_learns_truncated"), **GRPO),
    "num_logged_completions": probe(1, 4, grpo_trainer("_num_completions"), **GRPO),
}

PROBES: dict[str, Probe] = {
    **OF_PREFERENCES,
    **OF_GRPO,
    **{key: probe(one, other, argument(key), **rest) for key, (one, other, rest) in OF_TRAINING_ARGUMENTS.items()},
    "extra_training_args": probe(
        {}, {"ddp_bucket_cap_mb": 3}, lambda lab, config: lab.passed_arguments(config).get("ddp_bucket_cap_mb")
    ),
    "global_batch_size": probe(
        4, 8, lambda lab, config: argument("gradient_accumulation_steps")(lab, settle_batches(config))
    ),
    "max_memory_gib": probe(None, 8, lambda lab, config: device_room(config, AMPERE)),
    "disable_tqdm": probe(True, False, callback("Console")),
    "loss_chunk_tokens": probe(8, 16, lambda lab, config: trainer_of(lab, config).chunked_loss.chunk_tokens),
    "early_stopping_patience": probe(None, 2, callback("EarlyStopping"), **with_evaluation()),
    "early_stopping_threshold": probe(
        0, 0.5, callback("EarlyStopping"), **with_evaluation(early_stopping_patience=2)
    ),
    "packing": probe(False, "auto", batch_names),
    "group_by_length": probe(True, False, first_order),
    "use_cpu": probe(True, False, runs_on_gpu),
    "gradient_checkpointing": probe(True, False, checkpointing),
    "gradient_checkpointing_kwargs": probe({"use_reentrant": True}, {"use_reentrant": False}, checkpointing),
    "task_type": probe("sft", "pretrain", lambda lab, config: TASKS.get(config.model.task_type).row_kind),
    "train_mode": probe("lora", "full", lambda lab, config: load_model(prepare(config)).peft_config is None),
    "seed": probe(1, 2, weights),
    "max_seq_length": probe(256, 4, data),
    "bf16": probe(True, False, lambda lab, config: resolve_precision(config.model, AMPERE).bf16),
    "fp16": probe(True, False, lambda lab, config: resolve_precision(config.model, AMPERE).fp16),
    "dtype": probe(
        "auto", "float32", lambda lab, config: resolve_precision(config.model, AMPERE).load_dtype, bf16=None
    ),
    "model_name_or_path": probe("{model}", "{other_model}", lambda lab, config: prepare(config).tokenizer.get_vocab()),
    "model_revision": probe("1" * 40, "2" * 40, revision),
    "tokenizer_name_or_path": probe(None, "{other_model}", lambda lab, config: prepare(config).tokenizer.get_vocab()),
    "new_tokens": probe([], ["<tool>"], lora("trainable_token_indices")),
    "trust_remote_code": probe(
        False, True, remote_code, model_name_or_path="{remote}", tokenizer_name_or_path="{model}"
    ),
    "use_unsloth": probe(
        False, "auto", lambda lab, config: choose_loader(config.model, "sft", lab.cpu)
    ),
    "model_loader": probe(None, "unsloth", lambda lab, config: choose_loader(config.model, "sft", lab.cpu).got),
    "attn_implementation": probe(
        "eager", "sdpa", lambda lab, config: load_model(prepare(config)).model.config._attn_implementation
    ),
    "rope_scaling": probe(
        {},
        {"rope_type": "linear", "factor": 2},
        lambda lab, config: load_model(prepare(config)).model.config.max_position_embeddings,
    ),
    "freeze_trainable_layers": probe(None, 1, trained_names, train_mode="full"),
    "quantization": probe("int4", "int8", quantization("load_in_8bit"), train_mode="qlora"),
    "bnb_4bit_quant_type": probe("nf4", "fp4", quantization("bnb_4bit_quant_type"), train_mode="qlora"),
    "bnb_4bit_use_double_quant": probe(True, False, quantization("bnb_4bit_use_double_quant"), train_mode="qlora"),
    "quantized_cache": probe(False, True, got("quantized_cache"), train_mode="qlora"),
    "dequantize_base": probe(False, True, got("quantization"), train_mode="qlora"),
    "fp8_base": probe(False, True, got("quantization"), train_mode="lora"),
    "fused_lora": probe(True, False, lambda lab, config: wants_fused_adapters(config.model, AMPERE), train_mode="lora"),
    "checkpoint_skip_layers": probe(0, 1, got("checkpoint_skip_layers")),
    "offload_embedding": probe(
        False, True, lambda lab, config: offloads_embedding(config.model, AMPERE)
    ),
    "offload_head": probe(
        False, True, lambda lab, config: offloads_head(config.model, AMPERE)
    ),
    "tiled_mlp": probe(
        False, True, lambda lab, config: "forward" in vars(load_model(prepare(config)).model.model.model.layers[0].mlp)
    ),
    "hub_token": probe(None, "${oc.env:SESAME}", hub("HF_TOKEN")),
    "hub_endpoint": probe(None, "https://mirror.example", hub("HF_ENDPOINT")),
    "offline": probe(False, True, hub("HF_HUB_OFFLINE")),
    "lora_rank": probe(4, 8, lora("r")),
    "lora_alpha": probe(4, 8, lora("lora_alpha")),
    "lora_dropout": probe(0, 0.5, lora("lora_dropout")),
    "lora_target_modules": probe("all-linear", ["q_proj"], lora("target_modules")),
    "loraplus_lr_ratio": probe(1, 4, rates),
    "embedding_learning_rate": probe(None, 1e-5, rates, modules_to_save=["lm_head"]),
    "layers_to_transform": probe([0], ["0-1"], lambda lab, config: outcome(lambda: weights(lab, config))),
    "modules_to_save": probe([], ["lm_head"], lora("modules_to_save")),
    "use_rslora": probe(False, True, lora("use_rslora")),
    "use_dora": probe(False, True, lora("use_dora")),
    "lora_bias": probe(False, True, lora("lora_bias")),
    "init_lora_weights": probe(True, "gaussian", weights),
    "train_file": probe("{rows}", "{more_rows}", data),
    "eval_file": probe(None, "{more_rows}", data),
    "eval_split": probe(None, 2, data),
    "data_format": probe("auto", "alpaca", data),
    "columns": probe({}, {"messages": "conversations"}, data),
    "mixture_weights": probe([0.5, 0.5], [0.9, 0.1], data, train_file=["{rows}", "{more_rows}"]),
    "max_samples": probe(None, 2, data),
    "template_name": probe("auto", "llama3", rendering),
    "chat_template_kwargs": probe({}, {"word": "yes"}, data, template_name="{argument}"),
    "template_date": probe("2024-01-01", "2025-02-03", data, template_name="{date}"),
    "append_stop_token": probe(False, True, data, template_name="{no_end}"),
    "train_on_prompt": probe(False, True, data),
    "train_on": probe("all", "last", data, train_file="{turns}"),
    "default_system": probe(None, "Be brief.", data),
    "content_control_tokens": probe("text", "control", data, train_file="{controls}"),
    "truncation": probe("drop", "error", data, max_seq_length=8),
    "max_bad_rows": probe(0, 1, data, train_file=["{rows}", "{long_rows}"], max_seq_length=64),
    "tokenize_num_workers": probe(None, 1, threads),
    "cache_dir": probe(
        None, "{folder}/cache one", lambda lab, config: (prepare(config), (lab.folder / "cache one").exists())[1]
    ),
    "cache_max_gib": probe(50, 0, cached_files),
    "num_eval_generations": probe(0, 1, callback("Generation"), **with_evaluation()),
    "generation_max_new_tokens": probe(1, 24, answers, **with_evaluation(num_eval_generations=2)),
    "output_dir": probe("{folder}/one", "{folder}/two", lambda lab, config: lab.context(config).output_dir),
    "accepted_hints": probe(
        [], ["learning_rate"], lambda lab, config: list(map(str, check_hints(config))), learning_rate=1
    ),
    "plugins": probe([], ["{plugin}"], lambda lab, config: (lab.folder / "plugin_ran").exists()),
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def fill(value: Any, lab: Lab) -> Any:
    """Put the lab's paths into the {names} of a probe."""
    if isinstance(value, list):
        return [fill(item, lab) for item in value]
    if not isinstance(value, str) or "${" in value or not value.startswith("{"):
        return value
    paths = {
        "{model}": lab.model,
        "{other_model}": lab.other_model,
        "{rows}": lab.rows,
        "{remote}": lab.folder / "remote",
    }
    paths |= {f"{{{name}}}": path for name, path in lab.templates.items()}
    if value == "{more_rows}":
        return lab.write_rows("more.jsonl", 3, extra=" more")
    if value == "{long_rows}":
        return lab.write_rows("long.jsonl", 2, extra=" long" * 40)
    if value == "{pairs}":
        return str(ROOT / "data/samples/preference.jsonl")
    if value == "{turns}":
        return lab.write_rows("turns.jsonl", 1, turns=2)
    if value == "{controls}":
        return lab.write_rows("controls.jsonl", 1, extra=" <|end|>")
    if value == "{plugin}":
        plugin = lab.folder / "plugin.py"
        plugin.write_text(f"open({str(lab.folder / 'plugin_ran')!r}, 'w').close()\n", encoding="utf-8")
        return str(plugin)
    return str(paths[value]) if value in paths else value.replace("{folder}", str(lab.folder))


def test_every_key_is_probed() -> None:
    assert set(PROBES) == set(schema_fields())


@pytest.mark.parametrize("key", PROBES)
def test_a_key_makes_a_difference(key: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    item = PROBES[key]
    monkeypatch.setenv("SESAME", "open")
    monkeypatch.setenv("HF_HOME", str(lab.folder / "home"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    beside = {name: fill(value, lab) for name, value in item.beside.items()}
    seen = []
    for value in (item.one, item.other):
        config = lab.config(**{**beside, key: fill(value, lab)})
        assert key in config.written, "the config itself says that nothing reads it"
        seen.append(item.look(lab, config))
    assert seen[0] != seen[1]


def test_arguments_reach_the_trainer_as_they_are(lab: Lab) -> None:
    """All that this machine can take at once, in a TrainingArguments of transformers."""
    elsewhere = {"deepspeed", "fsdp", "fsdp_config", "tf32", "torch_compile", "report_to", "full_determinism"}
    elsewhere |= {"ddp_backend", "ddp_timeout"}
    values: dict[str, Any] = {}
    for key, (_, other, beside) in OF_TRAINING_ARGUMENTS.items():
        if key not in elsewhere:
            values |= {**beside, key: other}
    values |= {"save_strategy": "epoch", "logging_strategy": "steps", "eval_strategy": "steps"}
    values |= {"load_best_model_at_end": False, "save_steps": 2}
    config = lab.config(**values)
    arguments = build_training_arguments(config.training, lab.context(config))
    for key in values.keys() - {"eval_split", "save_steps"}:
        assert getattr(arguments, key) == values[key], key


def test_a_run_goes_where_output_dir_says(lab: Lab) -> None:
    values = {key: value for key, value in lab.config().written.items() if key in lab.config().places}
    folder = lab.folder / "a run"
    result = run({**values, "output_dir": str(folder)}, max_steps=1, use_cpu=True, save_strategy="no")
    assert result.global_step == 1
    assert (folder / "adapter_model.safetensors").is_file()


def test_deepspeed_is_a_notice_on_a_cpu(lab: Lab) -> None:
    config = lab.config(deepspeed="z.json")
    assert list(machine_notices(config, lab.cpu)) == [
        "deepspeed: ignored on a CPU; one process trains without sharding"
    ]
