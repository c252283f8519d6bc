"""Rules over several keys: one test for each problem, at the later key; what is completed and what is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from component.config.errors import ConfigError
from component.config.load import Config, load_config
from component.config.resolve import default_for
from component.config.schema import schema_fields

EVAL = "eval_file=e.jsonl"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*overrides: str) -> Config:
    return load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}, overrides)


def errors(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(*overrides)
    return list(error.value.messages)


NEEDS_DATA = "set eval_file or eval_split"
STARTS = "use true, false, gaussian, orthogonal, pissa, pissa_niter_16, olora or mica"
IMPOSSIBLE = [
    (
        ["init_lora_weights=pissa"],
        "init_lora_weights: pissa starts from 16-bit weights, and those of train_mode qlora are quantized; "
        "use train_mode: lora, or init_lora_weights: gaussian",
    ),
    (
        ["train_mode=lora", "init_lora_weights=loftq"],
        "init_lora_weights: loftq is not available: it quantizes 16-bit weights itself, in a simulation that saves no "
        f"memory; {STARTS}",
    ),
    (["init_lora_weights=pizza"], f'init_lora_weights: there is no "pizza"; {STARTS}'),
    (["train_mode=lora", "init_lora_weights=pissa_niter_"], f'init_lora_weights: there is no "pissa_niter_"; {STARTS}'),
    (
        ["train_mode=lora", "init_lora_weights=olora", "task_type=dpo"],
        "init_lora_weights: olora changes the base, which is the reference of dpo with the adapter off; "
        "use init_lora_weights: true",
    ),
    (
        ["train_mode=lora", "init_lora_weights=pissa_niter_4", "use_dora=true"],
        "init_lora_weights: pissa_niter_4 and use_dora both change what the adapter starts from; keep one of them",
    ),
    (
        ["init_lora_weights=orthogonal", "lora_rank=5"],
        "init_lora_weights: an orthogonal start needs an even rank, and lora_rank is 5; use lora_rank: 6",
    ),
    (
        ["extra_training_args.label_smoothing_factor=0.1", "task_type=dpo"],
        "extra_training_args: label_smoothing_factor is not read by dpo; use label_smoothing with loss_type exo_pair, "
        "robust, aot, aot_unpaired",
    ),
    (
        ["extra_training_args.label_smoothing_factor=0.1", "task_type=reward"],
        "extra_training_args: label_smoothing_factor is not read by reward; drop it",
    ),
    (
        ["extra_training_args.label_smoothing_factor=0.1", "use_unsloth=auto"],
        "extra_training_args: label_smoothing_factor is computed from scores that Unsloth's own loss replaces; drop "
        "it, or set use_unsloth: false",
    ),
    (
        ["gradient_checkpointing_kwargs.ofload=true"],
        'gradient_checkpointing_kwargs: there is no argument "ofload"; use use_reentrant, offload, preserve_rng_state, '
        "early_stop, debug, determinism_check",
    ),
    (
        ["gradient_checkpointing_kwargs.every_n_layers=2"],
        'gradient_checkpointing_kwargs: there is no argument "every_n_layers"; set checkpoint_skip_layers',
    ),
    (
        ["gradient_checkpointing_kwargs.offload=1"],
        "gradient_checkpointing_kwargs: offload is 1; use true or false",
    ),
    (
        ["gradient_checkpointing=false", "checkpoint_skip_layers=4"],
        "checkpoint_skip_layers: checkpoint_skip_layers without gradient_checkpointing, and no layer recomputes then; "
        "drop it, or set gradient_checkpointing: true",
    ),
    (
        ["dequantize_base=true", "quantization=int8"],
        "dequantize_base: dequantize_base is for 4-bit weights, and quantization is int8; drop one of them",
    ),
    (
        ["train_mode=lora", "fp8_base=true", "fsdp=full_shard"],
        "fp8_base: fsdp casts and splits the weights, and fp8_base's go with scales of their own; drop fp8_base",
    ),
    (
        ["train_mode=full", "offload_embedding=true"],
        "offload_embedding: offload_embedding keeps a frozen embedding in main memory, and train_mode trains it; "
        "drop one of them",
    ),
    (
        ["offload_embedding=true", "modules_to_save=[model.embed_tokens]"],
        "offload_embedding: offload_embedding keeps a frozen embedding in main memory, and modules_to_save trains it; "
        "drop one of them",
    ),
    (
        ["offload_embedding=true", "new_tokens=[<tool>]"],
        "offload_embedding: offload_embedding keeps a frozen embedding in main memory, and new_tokens trains it; "
        "drop one of them",
    ),
    (
        ["offload_embedding=true", "fsdp=full_shard"],
        "offload_embedding: fsdp places the weights itself, and offload_embedding would keep some in main memory; "
        "drop offload_embedding",
    ),
    (
        ["offload_head=true", "modules_to_save=[lm_head]"],
        "offload_head: offload_head keeps a frozen head in main memory, and modules_to_save trains it; "
        "drop one of them",
    ),
    (
        ["offload_head=true", "lora_target_modules=[q_proj, lm_head]"],
        "offload_head: offload_head keeps a frozen head in main memory, and lora_target_modules trains it; "
        "drop one of them",
    ),
    (
        ["offload_head=true", "task_type=reward"],
        "offload_head: offload_head keeps the head that scores tokens in main memory, and a reward model has none; "
        "drop offload_head",
    ),
    (
        ["fp8_base=true"],
        "fp8_base: fp8_base rounds a base in 16 bit, and qlora's is in 4 or 8 bit already; use train_mode: lora, or "
        "drop fp8_base",
    ),
    (
        ["fp8_base=true", "train_mode=lora", "use_dora=true"],
        "fp8_base: use_dora reads weights, which fp8_base rounds; drop one of them",
    ),
    (
        ["tiled_mlp=true", "use_liger_kernel=true"],
        "tiled_mlp: Liger's kernels replace the MLPs that tiled_mlp computes in tiles; drop one of them",
    ),
    (["lora_bias=true", "use_dora=true"], "lora_bias: DoRA has no bias of its own; drop one of them"),
    (
        ["lora_bias=true", "init_lora_weights=gaussian"],
        "lora_bias: lora_bias goes with init_lora_weights: true alone, not gaussian; drop one of them",
    ),
    (
        ["loraplus_lr_ratio=4", "optim=adalomo"],
        "loraplus_lr_ratio: optim adalomo has one learning rate for all; "
        "drop loraplus_lr_ratio or use optim: adamw_torch",
    ),
    (
        ["optim=auto", "optim_args=momentum=0.9"],
        "optim_args: optim auto takes none of optim_args; drop optim_args; weight_decay and adam_* are keys of their "
        "own",
    ),
    (
        ["optim=sgd", "optim_args=fast"],
        'optim_args: got "fast"; write NAME=VALUE, with commas between several, as in momentum=0.9,nesterov=true',
    ),
    (
        ["embedding_learning_rate=1e-5"],
        "embedding_learning_rate: train_mode qlora trains no embeddings; set modules_to_save: [embed_tokens, lm_head]",
    ),
    (
        ["quantization=int8", "train_mode=lora"],
        "quantization: train_mode lora keeps weights of 16 bit or more, quantization int8 does not; "
        "use train_mode: qlora, or drop quantization",
    ),
    (
        ["rope_scaling={rope_type: yarn}"],
        "rope_scaling: got {'rope_type': 'yarn'}; write {rope_type: yarn, factor: 4.0}; rope_type is linear, dynamic "
        "or yarn, factor a number above 1",
    ),
    (
        ["layers_to_transform=7-0"],
        'layers_to_transform: "7-0" is neither a layer nor a range of layers below 10,000; write numbers and ranges '
        'such as [0, "4-7"]',
    ),
    (
        ["layers_to_transform=0-999999999"],
        'layers_to_transform: "0-999999999" is neither a layer nor a range of layers below 10,000; write numbers and '
        'ranges such as [0, "4-7"]',
    ),
    (["fp16=true", "bf16=true"], "fp16: fp16 and bf16 are both true; keep one of them, or neither for auto"),
    (
        ["dtype=float16", "train_mode=full"],
        "dtype: float16 weights cannot be trained in full (train_mode: full): their small updates are lost; "
        "use dtype: auto or bfloat16, or train_mode: lora",
    ),
    (
        ["dtype=float32", "fp16=true"],
        "dtype: dtype float32 and fp16: true ask for two formats; drop one of them",
    ),
    ([EVAL, "eval_split=0.1"], "eval_file: eval_file and eval_split are both set; keep one of them"),
    (["eval_split=1.5"], "eval_split: got 1.5; use a share below 1 such as 0.05, or a whole number of rows"),
    (
        ["train_on_prompt=true", "train_on=last"],
        "train_on_prompt: train_on_prompt learns the whole row, train_on: last only its last answer; drop one of them",
    ),
    (
        ["task_type=dpo", "truncation=split_turns"],
        "truncation: truncation split_turns does not fit the rows of dpo; use drop, keep_start, keep_end or error",
    ),
    (
        ["task_type=grpo", "reward_functions=length", "truncation=keep_start"],
        "truncation: truncation keep_start does not fit the rows of grpo; use drop, keep_end or error",
    ),
    (["eval_strategy=epoch"], f"eval_strategy: epoch without evaluation data; {NEEDS_DATA}"),
    (["load_best_model_at_end=true"], f"load_best_model_at_end: needs evaluation, and none will run; {NEEDS_DATA}"),
    (["early_stopping_patience=2"], f"early_stopping_patience: needs evaluation, and none will run; {NEEDS_DATA}"),
    (["num_eval_generations=2"], f"num_eval_generations: needs evaluation, and none will run; {NEEDS_DATA}"),
    (["eval_on_start=true"], f"eval_on_start: needs evaluation, and none will run; {NEEDS_DATA}"),
    (["save_strategy=best"], f"save_strategy: needs evaluation, and none will run; {NEEDS_DATA}"),
    (
        [EVAL, "eval_strategy=no", "save_strategy=best"],
        f"save_strategy: needs evaluation, and none will run; {NEEDS_DATA}",
    ),
    (
        [EVAL, "load_best_model_at_end=true", "save_strategy=steps"],
        "load_best_model_at_end: load_best_model_at_end needs a checkpoint at each evaluation: eval_strategy epoch, "
        "save_strategy steps; set save_strategy: epoch",
    ),
    (
        [EVAL, "load_best_model_at_end=true", "eval_steps=100", "save_steps=150"],
        "save_steps: save_steps 150 is not a multiple of eval_steps 100; "
        "make it one, so that every checkpoint has been evaluated",
    ),
    (
        [EVAL, "load_best_model_at_end=true", "eval_steps=0.1", "save_steps=150"],
        "save_steps: save_steps 150 is not a multiple of eval_steps 0.1; "
        "make it one, so that every checkpoint has been evaluated",
    ),
    (["max_steps=0"], "max_steps: got 0; use -1 or a positive number of steps"),
    (["logging_steps=1.5"], "logging_steps: got 1.5; use a whole number of steps, or a share below 1"),
    (["save_steps=2.5"], "save_steps: got 2.5; use a whole number of steps, or a share below 1"),
    (["warmup_steps=1.5"], "warmup_steps: got 1.5; use a whole number of steps, or a share below 1"),
    ([EVAL, "eval_steps=1.5"], "eval_steps: got 1.5; use a whole number of steps, or a share below 1"),
    ([EVAL, "eval_strategy=steps"], "eval_strategy: steps, but eval_steps is not set; set eval_steps"),
    (
        ["dataloader_prefetch_factor=2"],
        "dataloader_prefetch_factor: dataloader_prefetch_factor without dataloader_num_workers; "
        "set dataloader_num_workers to 1 or more",
    ),
    (
        ["dataloader_persistent_workers=true"],
        "dataloader_persistent_workers: dataloader_persistent_workers without dataloader_num_workers; "
        "set dataloader_num_workers to 1 or more",
    ),
    (["deepspeed=z.json", "fsdp=full_shard"], "deepspeed: deepspeed and fsdp are both set; keep one of them"),
    (
        ["deepspeed=z.json", "use_unsloth=require"],
        "deepspeed: deepspeed with use_unsloth: require, and Unsloth trains on one GPU; "
        "drop deepspeed or set use_unsloth: false",
    ),
    (
        ["model_loader=vanilla", "use_unsloth=auto"],
        "model_loader: model_loader vanilla and use_unsloth auto both choose a loader; keep one of them",
    ),
    (
        ["chat_template_kwargs.enable_thinking=false", "chat_template_kwargs.add_generation_prompt=true"],
        "chat_template_kwargs: add_generation_prompt is set by Lampyris for each row; drop add_generation_prompt",
    ),
    (["template_date=today"], 'template_date: "today" is no date; write it as 2024-07-26'),
    (
        ["hub_token=hf_123"],
        "hub_token: a secret must not stand in a config; write ${oc.env:HF_TOKEN} and set that variable",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), IMPOSSIBLE, ids=[" ".join(pair[0]) for pair in IMPOSSIBLE])
def test_an_impossible_combination(overrides: list[str], message: str) -> None:
    assert errors(*overrides) == [f"command line: {message}"]


PAIRS = [
    ("fp16", True, "bf16", True, "fp16 and bf16 are both true"),
    ("deepspeed", "z.json", "fsdp", "full_shard", "deepspeed and fsdp are both set"),
    ("eval_file", "e", "eval_split", 0.1, "eval_file and eval_split are both set"),
    ("model_loader", "vanilla", "use_unsloth", True, "model_loader vanilla and use_unsloth true both choose a loader"),
    ("dtype", "float16", "train_mode", "full", "float16 weights cannot be trained in full (train_mode: full)"),
]


@pytest.mark.parametrize(("one", "its", "other", "others", "what"), PAIRS)
def test_a_rule_over_two_keys_reports_at_the_later_one(
    one: str, its: object, other: str, others: object, what: str
) -> None:
    """Later in the file, in a later layer, or on the command line, whichever of the two that is."""

    def text(first: tuple[str, object], second: tuple[str, object] | None = None) -> str:
        lines = [
            f"{key}: {str(value).lower() if isinstance(value, bool) else value}"
            for key, value in (first, second or ("seed", 1))
        ]
        return "\n".join([*lines, "model_name_or_path: m", "train_file: d", ""])

    def only_error(*overrides: str) -> str:
        with pytest.raises(ConfigError) as error:
            load_config("run.yaml", overrides)
        [message] = error.value.messages
        assert what in message
        return message

    for first, second in (((one, its), (other, others)), ((other, others), (one, its))):
        Path("run.yaml").write_text(text(first, second), encoding="utf-8")
        assert only_error().startswith(f"run.yaml:2:1: {second[0]}: ")
        Path("run.yaml").write_text(text(first), encoding="utf-8")
        value = str(second[1]).lower() if isinstance(second[1], bool) else second[1]
        assert only_error(f"{second[0]}={value}").startswith(f"command line: {second[0]}: ")
        Path("base.yaml").write_text(text(first), encoding="utf-8")
        Path("run.yaml").write_text(f"{second[0]}: {value}\nbase: base.yaml\n", encoding="utf-8")
        assert only_error().startswith(f"run.yaml:1:1: {second[0]}: ")


def test_a_rule_over_a_refused_value_has_nothing_to_add() -> None:
    assert errors("fp16=maybe", "bf16=true") == [
        'command line: fp16: expected true or false, got "maybe"; write true or false'
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        [EVAL, "load_best_model_at_end=true", "save_strategy=best"],
        [EVAL, "load_best_model_at_end=true", "save_strategy=epoch"],
        [EVAL, "load_best_model_at_end=true", "eval_steps=50", "save_steps=150"],
        [EVAL, "load_best_model_at_end=true", "eval_steps=0.1", "save_steps=0.3"],
        [EVAL, "early_stopping_patience=2", "save_strategy=no"],
        ["eval_split=3"],
        ["eval_split=0.5", "eval_strategy=no"],
        ["dataloader_num_workers=1", "dataloader_prefetch_factor=2", "dataloader_persistent_workers=true"],
        ["fp16=true", "bf16=false"],
        ["template_date=2024-02-29"],
        ["truncation=split_turns"],
        ["task_type=reward", "truncation=keep_start"],
        ["max_steps=-1", "warmup_steps=0", "warmup_steps=0.5"],
    ],
)
def test_possible_combinations(overrides: list[str]) -> None:
    assert load(*overrides).values["model_name_or_path"] == "m"


@pytest.mark.parametrize("token", ["hf_1${oc.env:HOME}", "${oc.env:UNSET_NAME,hf_1}", "${seed}"])
def test_a_token_is_a_variable_and_nothing_else(token: str) -> None:
    secret = "a secret must not stand in a config; write ${oc.env:HF_TOKEN} and set that variable"
    assert f"command line: hub_token: {secret}" in errors(f"hub_token={token}")


def test_defaults_that_depend_on_other_keys() -> None:
    assert load().values["learning_rate"] == 2e-4
    assert load("train_mode=full").values["learning_rate"] == 1e-5
    assert load("task_type=dpo").values["learning_rate"] == 5e-6
    assert load("task_type=dpo", "train_mode=full").values["learning_rate"] == 5e-7
    metadata = schema_fields()["learning_rate"].metadata
    assert default_for(metadata, "task_of_a_plugin", "full") == 1e-5, "the rate of sft"
    assert load("train_mode=full", "learning_rate=3e-5").values["learning_rate"] == 3e-5
    assert load().values["eval_strategy"] == "no"
    assert load(EVAL).values["eval_strategy"] == "epoch"
    assert load(EVAL, "eval_steps=5").values["eval_strategy"] == "steps"
    assert load("eval_split=0.5", "eval_steps=5", "eval_strategy=epoch").values["eval_strategy"] == "epoch"
    assert load("per_device_train_batch_size=3").values["per_device_eval_batch_size"] == 3
    assert load("per_device_eval_batch_size=5", EVAL).values["per_device_eval_batch_size"] == 5
    assert load().values["greater_is_better"] is False
    assert load("greater_is_better=true").values["greater_is_better"] is True


IGNORED = [
    (["train_mode=full", "lora_rank=8"], "lora_rank", "train_mode full does not read it, only lora, qlora"),
    (
        ["train_mode=lora", "bnb_4bit_quant_type=fp4"],
        "bnb_4bit_quant_type",
        "train_mode lora does not read it, only qlora",
    ),
    (["beta=0.2"], "beta", "task_type sft does not read it, only dpo, orpo, cpo, kto, grpo"),
    (
        ["task_type=pretrain", "template_name=llama3"],
        "template_name",
        "task_type pretrain does not read it, only sft, dpo, orpo, cpo, kto, reward, grpo",
    ),
    (["task_type=cpo", "simpo_gamma=1"], "simpo_gamma", "only read with loss_type simpo, alphapo"),
    (
        ["task_type=cpo", "loss_type=alphapo", "alphapo_alpha=0.1", "cpo_alpha=0.5"],
        "cpo_alpha",
        "only read with other losses than alphapo",
    ),
    (
        ["task_type=cpo", "loss_type=hinge", "label_smoothing=0.1"],
        "label_smoothing",
        "only read with loss_type exo_pair, robust, aot, aot_unpaired of dpo; loss_type sigmoid, simpo, alphapo of cpo",
    ),
    (["task_type=dpo", "cpo_alpha=0"], "cpo_alpha", "task_type dpo does not read it, only cpo"),
    (["eval_steps=5"], "eval_steps", "only read with eval_strategy: steps"),
    (["eval_delay=5"], "eval_delay", "only read with evaluation data"),
    (["per_device_eval_batch_size=5"], "per_device_eval_batch_size", "only read with evaluation data"),
    (["save_strategy=no", "save_steps=5"], "save_steps", "only read with save_strategy: steps"),
    (["logging_strategy=epoch", "logging_steps=5"], "logging_steps", "only read with logging_strategy: steps"),
    (["early_stopping_threshold=1"], "early_stopping_threshold", "only read with early_stopping_patience"),
    (["generation_max_new_tokens=5"], "generation_max_new_tokens", "only read with num_eval_generations"),
    (
        ["gradient_checkpointing=false", "gradient_checkpointing_kwargs.use_reentrant=true"],
        "gradient_checkpointing_kwargs",
        "only read with gradient_checkpointing",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "key", "why"), IGNORED, ids=[pair[1] for pair in IGNORED])
def test_a_key_that_nothing_reads_is_a_notice(overrides: list[str], key: str, why: str) -> None:
    config = load(*overrides)
    assert list(map(str, config.notices)) == [f"command line: {key}: ignored; {why}"]
    assert key not in config.written and key in config.values


def test_keys_at_their_default_are_no_notice() -> None:
    assert load("train_mode=full", "task_type=pretrain").notices == ()
