"""Loading: each error once with its whole message, all errors at once, interpolation, secrets, and mutated configs."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from component.config.choices import METRICS, OPTIMIZERS, SCHEDULERS
from component.config.errors import ConfigError
from component.config.legacy import DROPPED, FOREIGN, RENAMED
from component.config.load import Config, load_config
from component.config.schema import schema_fields
from component.registry import TEMPLATE_NAMES

SECRET = "hf_sesame_opens"

UNKNOWN_FIX = "remove it; docs/config.md lists all keys, extra_training_args takes further Trainer arguments"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESAME", SECRET)
    monkeypatch.delenv("UNSET", raising=False)


def load(text: str, *overrides: str, name: str = "run.json") -> Config:
    """Load a config of this text, with the mandatory keys behind it."""
    if name.endswith(".json"):
        text = f'{{\n  {text},\n  "model_name_or_path": "m", "train_file": "d"\n}}'
    else:
        text = f"{text}\nmodel_name_or_path: m\ntrain_file: d\n"
    Path(name).write_text(text, encoding="utf-8")
    return load_config(name, overrides)


def errors(text: str, *overrides: str, name: str = "run.json") -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(text, *overrides, name=name)
    return list(error.value.messages)


# One line of a file, and the whole message without `run.json:2:`.
SINGLE_ERRORS = [
    ('"lora_rnak": 8', "3: lora_rnak: unknown key; did you mean lora_rank?"),
    ('"frobnicate": 8', f"3: frobnicate: unknown key; {UNKNOWN_FIX}"),
    ('"größe": 8', f"3: größe: unknown key; {UNKNOWN_FIX}"),
    ('"a\\nb\\u001b[31m": 8', f"3: a\\nb\\u001b[31m: unknown key; {UNKNOWN_FIX}"),
    ('"cutoff_len": 8', "3: cutoff_len: unknown key; use max_seq_length"),
    ('"micro_batch_size": 8', "3: micro_batch_size: unknown key; use per_device_train_batch_size"),
    (
        '"rl": "dpo"',
        "3: rl: unknown key; use task_type: dpo, kto, orpo or grpo, as rl says (ipo: dpo with loss_type: ipo; simpo: "
        "cpo with loss_type: simpo and cpo_alpha: 0)",
    ),
    (
        '"lora_model_dir": "a"',
        "3: lora_model_dir: unknown key; use model_name_or_path: the adapter's folder, which names its base itself",
    ),
    (
        '"eos_token": "</s>"',
        "3: eos_token: unknown key; leave it out: answers end with the template's stop token, or with "
        "append_stop_token the tokenizer's EOS",
    ),
    ('"per_device_batch_size": 2', "3: per_device_batch_size: unknown key; use per_device_train_batch_size"),
    ('"early_stopping_steps": 2', "3: early_stopping_steps: unknown key; use early_stopping_patience"),
    ('"load_in_4bit": 4', "19: load_in_4bit: expected true or false, got 4; write true or false"),
    ('"lora_r": 8', "3: lora_r: unknown key; use lora_rank"),
    ('"max_length": 8', "3: max_length: unknown key; use max_seq_length"),
    ('"sample_packing": true', "3: sample_packing: unknown key; use packing"),
    (
        '"quantization": "fp8"',
        '19: quantization: expected "int4" or "int8", got "fp8"; choose one of them',
    ),
    ('"lora_rank": "eight"', '16: lora_rank: expected an integer, got "eight"; write a number such as 8'),
    ('"lora_rank": 8.5', "16: lora_rank: expected an integer, got 8.5; write a whole number such as 8"),
    ('"lora_rank": true', "16: lora_rank: expected an integer, got true; write a number such as 8"),
    ('"lora_rank": null', "16: lora_rank: expected an integer, got null; write a number such as 8"),
    ('"lora_rank": [8]', "16: lora_rank: expected an integer, got [8]; write a number such as 8"),
    ('"learning_rate": "fast"', '20: learning_rate: expected a number, got "fast"; write a finite number such as 0.1'),
    ('"bf16": "yes"', '11: bf16: expected true or false, got "yes"; write true'),
    ('"run_name": 8', "15: run_name: expected text, got 8; put it in double quotes"),
    ('"report_to": {"a": 1}', '16: report_to: expected a list of text, got {"a": 1}; write a list in [ ]'),
    (
        '"chat_template_kwargs": 8',
        '27: chat_template_kwargs: expected a mapping, got 8; write a mapping such as {"key": "value"}',
    ),
    (
        '"train_mode": "qlorra"',
        '17: train_mode: expected "full", "lora" or "qlora", got "qlorra"; did you mean qlora?',
    ),
    (
        '"gradient_checkpointing": "offload"',
        '29: gradient_checkpointing: expected true, false, "unsloth" or "auto", got "offload"; '
        "use gradient_checkpointing_kwargs: {offload: true}; through Unsloth it is done already",
    ),
    (
        '"task_type": "stf"',
        '16: task_type: there is no "stf"; use one of: pretrain, sft, dpo, orpo, cpo, kto, reward, grpo',
    ),
    (
        '"template_name": "lama3"',
        '20: template_name: there is no "lama3"; did you mean llama3? use a .jinja file or one of: auto, '
        + ", ".join(TEMPLATE_NAMES),
    ),
    (
        '"optim": "adamw_torch_fusd"',
        '12: optim: there is no "adamw_torch_fusd"; did you mean adamw_torch_fused? use one of: '
        + ", ".join(("auto", *OPTIMIZERS)),
    ),
    (
        '"lr_scheduler_type": "cosinus"',
        '24: lr_scheduler_type: there is no "cosinus"; did you mean cosine? use one of: ' + ", ".join(SCHEDULERS),
    ),
    (
        '"data_format": "csv"',
        '18: data_format: there is no "csv"; use one of: auto, firefly, alpaca, sharegpt, openai, qa, '
        "prompt_completion, segments, text, preference, kto, prompt_only",
    ),
    ('"model_loader": "x"', '19: model_loader: there is no "x"; use one of: vanilla, unsloth'),
    (
        '"report_to": ["wandb", "excel"]',
        '16: report_to: there is no "excel"; use one of: none, tensorboard, wandb, swanlab, mlflow, trackio',
    ),
    (
        '"metric_for_best_model": "accuracy"',
        '28: metric_for_best_model: there is no "accuracy"; did you mean eval_accuracy? use one of: '
        + ", ".join(METRICS),
    ),
    (
        '"per_device_train_batch_size": 0',
        "34: per_device_train_batch_size: got 0; use a number above 0",
    ),
    ('"gradient_accumulation_steps": -4', "34: gradient_accumulation_steps: got -4; use a number above 0"),
    ('"lora_rank": -1', "16: lora_rank: got -1; use a number above 0"),
    ('"max_seq_length": 0', "21: max_seq_length: got 0; use a number above 0"),
    ('"learning_rate": -1e-4', "20: learning_rate: got -0.0001; use a number of at least 0"),
    ('"lora_dropout": 1', "19: lora_dropout: got 1; use a number below 1"),
    ('"max_bad_rows": 1.5', "19: max_bad_rows: got 1.5; use a number of at most 1"),
    ('"seed": 4294967296', "11: seed: got 4294967296; use a number of at most 4294967295"),
    ('"run_name": ""', "15: run_name: is empty; write a value, or remove the key"),
    ('"eval_file": []', "16: eval_file: is empty; write a value, or remove the key"),
    ('"eval_file": ["e", ""]', "16: eval_file: is empty; write a value, or remove the key"),
    ('"run_name": "a\\u0000b"', "15: run_name: holds a NUL character; remove it"),
    ('"run_name": "???"', '15: run_name: "???" stands for a missing value; write the value'),
    (
        '"extra_training_args": {"learning_rate": 1}',
        "27: extra_training_args.learning_rate: is a key of its own; write learning_rate at the top level",
    ),
    (
        '"extra_training_args": {"a": 1}',
        "27: extra_training_args.a: the installed transformers' TrainingArguments has no such argument; remove it",
    ),
    ('"run_name": "${seedling}"', "15: run_name: ${seedling} refers to a key that does not exist; "
     "refer to a key of this config, or to ${oc.env:NAME}"),
    ('"seed": "${seed}"', "11: seed: ${seed} refers to itself; break the circle of references"),
    ('"seed": "${oc.env:UNSET}"', "11: seed: ${oc.env:UNSET} needs the environment variable UNSET, which is not set; "
     "set it, or write ${oc.env:UNSET,default}"),
    ('"run_name": "${"', "15: run_name: ${ is not an interpolation that a config can hold; "
     "write ${key} or ${oc.env:NAME}, and \\${ for the plain characters"),
    ('"run_name": "${seed}"', "15: run_name: expected text, got 42; refer to a fitting value"),
    ('"plugins": "gone.py"', "14: plugins: no such file: {here}/gone.py; correct the path"),
    ('"lora_rank": 8, "lora_rank": 9', "19: lora_rank: duplicate key, first given in line 2; keep one of the two"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), SINGLE_ERRORS, ids=[line for line, _ in SINGLE_ERRORS])
def test_one_error(line: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers") if "extra_training_args" in line else None
    assert errors(line) == [f"run.json:2:{message}".replace("{here}", str(tmp_path))]


@pytest.mark.parametrize(("line", "message"), SINGLE_ERRORS[:1] + SINGLE_ERRORS[10:20])
def test_the_same_on_the_command_line(line: str, message: str) -> None:
    key, _, value = line.replace('"', "").partition(": ")
    key_and_what = message.partition(": ")[2]
    if value not in ("{a: 1}", "8"):  # in quotes these are text there
        assert errors('"seed": 1', f"{key}={value}") == [f"command line: {key_and_what}"]


def test_errors_of_syntax(tmp_path: Path) -> None:
    for text, message in {
        '{"seed": 1,}': "run.json:1:11: seed: trailing comma; remove it",
        '{"seed": 1 // one\n}': "run.json:1:12: seed: comments are not JSON; remove it, or use a YAML file",
        '\ufeff{"seed": 1}': "run.json:1:1: the file begins with a byte-order mark; save it as UTF-8 without BOM",
    }.items():
        Path("run.json").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as error:
            load_config("run.json", ["model_name_or_path=m", "train_file=d"])
        assert len(error.value.messages) == 1, text
        assert error.value.messages[0].split(":")[:3] == message.split(":")[:3]
        assert re.search("trailing comma|comment|byte-order mark", error.value.messages[0])


def test_all_missing_keys_are_named() -> None:
    Path("empty.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config("empty.yaml")
    assert error.value.messages == (
        "empty.yaml:1:1: model_name_or_path: missing; set it, for example Qwen/Qwen2.5-7B-Instruct",
        "empty.yaml:1:1: train_file: missing; set it, for example data/dummy_data.jsonl",
    )
    with pytest.raises(ConfigError) as error:
        load_config({})
    assert [message.split(";")[0] for message in error.value.messages] == [
        "config: model_name_or_path: missing",
        "config: output_dir: missing",
        "config: train_file: missing",
    ]


def test_mandatory_keys_that_are_null_or_empty() -> None:
    Path("run.json").write_text('{"model_name_or_path": null,\n "train_file": ""}', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config("run.json")
    assert error.value.messages == (
        "run.json:1:24: model_name_or_path: expected text, got null; set it, for example Qwen/Qwen2.5-7B-Instruct",
        "run.json:2:16: train_file: is empty; write a value, or remove the key",
    )


def test_missing_keys_are_not_reported_where_a_file_could_not_be_read() -> None:
    Path("broken.json").write_text('{"seed": 1,\n "model_name_or_path" "m"}', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config("broken.json", ["lora_rank=0"])
    assert [message.split(";")[0] for message in error.value.messages] == [
        'broken.json:2:23: model_name_or_path: expected a colon after the key, got "m"',
        "command line: lora_rank: got 0",
    ]


def test_everything_at_once_from_two_files_and_the_command_line(tmp_path: Path) -> None:
    """All problems of all layers in one list: by layer, then by position."""
    (tmp_path / "base").mkdir()
    Path("base/common.yaml").write_text(
        "lora_rank: 0\n"
        "fp16: true\n"
        "lora_r: 8\n"
        "eval_split: 0.1\n"
        "optim: adamw\n"
        "lora_rank: 4\n"
        "learning_rate: fast\n"
        "use_unsloth: true\n",
        encoding="utf-8",
    )
    Path("run.json").write_text(
        "{\n"
        '  "base": ["base/common.yaml", "base/gone.json"],\n'
        '  "bf16": "true", "bf16": false,\n'
        '  "max_sequence_length": 7,\n'
        '  "eval_file": ["e.jsonl"],\n'
        '  "num_train_epochs": -1, "warmup_steps": 1, "warmup_ratio": 0.1,\n'
        '  "report_to": ["tensorbord"],\n'
        '  "run_name": "${oc.env:UNSET}",\n'
        '  "hub_token": "hf_123"\n'
        "}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as error:
        load_config("run.json", ["model_loader=vanilla", "seed=-1", "train_mode=qloar", "x", "save_stratgy=no"])
    optimizers = ", ".join(("auto", *OPTIMIZERS))
    assert list(error.value.messages) == [
        "base/common.yaml:1:12: lora_rank: got 0; use a number above 0",
        "base/common.yaml:3:1: lora_r: unknown key; use lora_rank",
        f'base/common.yaml:5:8: optim: there is no "adamw"; did you mean adamw_torch? use one of: {optimizers}',
        "base/common.yaml:6:1: lora_rank: duplicate key, first given in line 1; keep one of the two",
        'base/common.yaml:7:16: learning_rate: expected a number, got "fast"; write a finite number such as 0.1',
        f"run.json:2:32: base: no such file: {tmp_path}/base/gone.json; correct the path "
        "(a base is relative to its file)",
        "run.json:3:19: bf16: duplicate key, first given in line 3; keep one of the two",
        "run.json:4:3: max_sequence_length: unknown key; did you mean max_seq_length?",
        "run.json:5:3: eval_file: eval_file and eval_split are both set; keep one of them",
        "run.json:6:23: num_train_epochs: got -1; use a number above 0",
        "run.json:6:46: warmup_ratio: an old name of warmup_steps, which is set too; keep one of them",
        'run.json:7:16: report_to: there is no "tensorbord"; did you mean tensorboard? '
        "use one of: none, tensorboard, wandb, swanlab, mlflow, trackio",
        "run.json:8:15: run_name: ${oc.env:UNSET} needs the environment variable UNSET, which is not set; "
        "set it, or write ${oc.env:UNSET,default}",
        "run.json:9:3: hub_token: a secret must not stand in a config; write ${oc.env:HF_TOKEN} and set that variable",
        "command line: model_loader: model_loader vanilla and use_unsloth true both choose a loader; keep one of them",
        "command line: save_stratgy: unknown key; did you mean save_strategy?",
        "command line: seed: got -1; use a number of at least 0",
        'command line: train_mode: expected "full", "lora" or "qlora", got "qloar"; did you mean qlora?',
        "command line: x: not a KEY=VALUE; write it as lora_rank=16",
    ]


def test_references_to_other_keys() -> None:
    config = load(
        '"seed": 7, "data_seed": "${seed}", "run_name": "run-${seed}-${train_mode}", "output_dir": "out/${run_name}", '
        '"lr_scheduler_kwargs": {"a": ["${lora_rank}", {"b": "${lr_scheduler_kwargs.c}"}], "c": 2}, '
        '"model_revision": "\\\\${plain}"'
    )
    assert (config.training.data_seed, config.training.run_name) == (7, "run-7-qlora")
    assert config.run.output_dir == "out/run-7-qlora"
    assert config.training.lr_scheduler_kwargs == {"a": [64, {"b": 2}], "c": 2}
    assert config.model.model_revision == "${plain}"
    assert config.written["run_name"] == "run-7-qlora"


def test_cycles_of_references() -> None:
    assert errors('"seed": "${data_seed}",\n "data_seed": "${seed}"') == [
        "run.json:2:11: seed: ${data_seed} refers to itself; break the circle of references",
        "run.json:3:15: data_seed: ${seed} refers to itself; break the circle of references",
    ]


def test_the_environment_is_read_and_never_written() -> None:
    config = load(
        '"hub_token": "${oc.env:SESAME}", "run_name": "x-${hub_token}", "model_revision": "${run_name}", '
        '"lr_scheduler_kwargs": {"a": {"b": ["${ model_revision }"]}}, "seed": "${oc.env:UNSET,12}"'
    )
    assert config.model.hub_token == SECRET
    assert config.training.run_name == f"x-{SECRET}"
    assert config.model.model_revision == f"x-{SECRET}"
    assert config.training.lr_scheduler_kwargs == {"a": {"b": [f"x-{SECRET}"]}}
    assert config.training.seed == 12
    assert SECRET not in repr(config.written) + repr(config.notices)
    assert config.written["hub_token"] == "${oc.env:SESAME}"
    assert config.written["run_name"] == "x-${hub_token}"
    assert config.written["model_revision"] == "${run_name}"
    assert config.written["lr_scheduler_kwargs"] == {"a": {"b": ["${ model_revision }"]}}
    assert config.written["seed"] == "${oc.env:UNSET,12}"


def test_what_was_written_loads_to_the_same_config() -> None:
    config = load('"hub_token": "${oc.env:SESAME}", "learning_rate": "2e-4", "task_type": "pretrain", "save_steps": 7')
    again = load_config(dict(config.written))
    assert again.written == config.written
    assert again.training == config.training and again.data == config.data and again.model == config.model


@pytest.mark.parametrize("key", ["seed", "optim", "report_to", "train_mode", "plugins", "use_unsloth", "bf16"])
def test_no_message_shows_what_is_in_the_environment(key: str) -> None:
    for line in (f'"{key}": "${{oc.env:SESAME}}"', f'"run_name": "${{oc.env:SESAME}}", "{key}": "${{run_name}}"'):
        [message] = errors(line) if key != "plugins" else errors(line)[:1]
        assert SECRET not in message or key == "plugins"
        if key != "plugins":
            fix = "the value from the environment does not fit; set the variable to a fitting value"
            assert message.endswith(f"{key}: {fix}")


@pytest.mark.parametrize(
    "text",
    [
        "${oc.select:hub_token}",
        "${oc.decode:${oc.env:SESAME}}",
        "${.hub_token}",
        "${[hub_token]}",
        "${hub_${train_mode}}",
        "${oc.env:A,${hub_token}}",
        "${oc.create:{a: 1}}",
        "${x:y}",
        "$${",
    ],
)
def test_other_forms_of_interpolation_are_refused(text: str) -> None:
    """Through them a secret could reach another key unseen."""
    [message] = errors(f'"hub_token": "${{oc.env:SESAME}}", "run_name": {json.dumps(text)}')
    assert message.endswith(
        f"run_name: {text} is not an interpolation that a config can hold; "
        "write ${key} or ${oc.env:NAME}, and \\${ for the plain characters"
    )


def test_plugins_that_fail(tmp_path: Path) -> None:
    for name, text, message in (
        ("ends.py", "import sys\nsys.exit(3)", "ends.py:2: SystemExit: 3; mend the file"),
        (
            "raises.py",
            "def f():\n    raise ValueError('a\\nb')\nf()",
            "raises.py:2: ValueError: a\\nb; mend the file",
        ),
        ("syntax.py", "x = (", "syntax.py:1: SyntaxError: '(' was never closed (syntax.py, line 1); mend the file"),
        ("text.txt", "", "text.txt is not a Python file by its name; name it .py"),
        (
            "taken.py",
            "from component.registry import TASKS\n\n@TASKS.register('sft')\nclass A: pass",
            "taken.py:3: ValueError: task 'sft' exists already; choose another name; mend the file",
        ),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert errors(f'"plugins": "{name}"') == [f"run.json:2:14: plugins: {message}"]


MESSAGE = re.compile(r"(mutated\.(json|yaml)(:\d+:\d+)?|command line): [^\n\r]+; [^\n\r]+")
VALUES: dict[str, Any] = {
    "model_name_or_path": "m",
    "train_file": ["a.jsonl", "b.jsonl"],
    "eval_file": "e.jsonl",
    "output_dir": "o",
    "learning_rate": 2e-4,
    "lora_rank": 8,
    "lora_dropout": 0.1,
    "bf16": True,
    "optim": "adamw_torch",
    "report_to": "none",
    "use_unsloth": "auto",
    "chat_template_kwargs": {"enable_thinking": False, "more": {"a": [1, 2]}},
    "extra_training_args": {"ddp_bucket_cap_mb": 5},
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "template_name": "llama3",
    "run_name": "run",
    "warmup_ratio": 0.1,
    "save_steps": 10,
}
KEYS = st.sampled_from(
    sorted({*schema_fields(), *RENAMED, *DROPPED, *FOREIGN, "base", "$schema", "lora_rnak", "größe", "🙂", ""})
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=12),
    st.sampled_from(
        ["???", "${seed}", "${oc.env:SESAME}", "${", "${a.b}", "${oc.env:}", "\\${x}", "true", "1e999", "-0", "0", "no",
         "x.jinja", "\0", "\x1b[31m", "a\nb", "\u2028", "{}", "[", "<<", "&a", "*a", "!t", "mutated.json", "."]
    ),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | KEYS, inner, max_size=3),
    max_leaves=6,
)


def _misspell(key: str, random: random.Random) -> str:
    place = random.randrange(len(key) + 1)
    return random.choice((key[:place] + key[place + 1 :], key[:place] + "x" + key[place:], key[::-1], key.upper()))


@st.composite
def mutated_configs(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A file name, its text, and overrides: a valid config after a few changes of its values, keys and text."""
    values = dict(VALUES)
    generator = random.Random(draw(st.integers(0, 2**16)))
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from(["drop", "set", "misspell", "wrap", "unwrap", "deep"]))
        key = draw(st.sampled_from(sorted(values))) if values else "seed"
        if change == "drop":
            values.pop(key, None)
        elif change == "set":
            values[draw(KEYS)] = draw(ANYTHING)
        elif change == "misspell" and key in values:
            values[_misspell(key, generator)] = values.pop(key)
        elif change == "wrap" and key in values:
            values[key] = draw(st.sampled_from([[values[key]], {"a": values[key]}, {key: values[key]}]))
        elif change == "unwrap" and isinstance(values.get(key), list):
            values[key] = values[key][0] if values[key] else None
        else:
            values["lr_scheduler_kwargs"] = _nest(draw(st.integers(1, 90)))
    name = draw(st.sampled_from(["mutated.json", "mutated.yaml"]))
    text = json.dumps(values, indent=draw(st.sampled_from([None, 2])), ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(text)))
        inserted = draw(
            st.text(max_size=3) | st.sampled_from(["{", "}", '"', ",", ":", "[", "#", "// x\n", "\ufeff", "&a"])
        )
        text = text[:place] + inserted + text[place + draw(st.integers(0, 3)) :]
    pairs = st.builds("{}={}".format, KEYS | st.text(max_size=8), st.text(max_size=8) | ANYTHING.map(json.dumps))
    return name, text, draw(st.lists(pairs | st.text(max_size=8), max_size=2))


#: LAMPYRIS_MUTATIONS=1000 runs three times as many, in half a minute.
NUM_MUTATIONS = int(os.environ.get("LAMPYRIS_MUTATIONS", "300"))


def _nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@settings(
    max_examples=NUM_MUTATIONS,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(mutated=mutated_configs())
def test_a_mutated_config_loads_or_says_what_is_wrong(mutated: tuple[str, str, list[str]]) -> None:
    name, text, overrides = mutated
    Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config = load_config(name, overrides)
    except ConfigError as error:
        assert error.messages
        for message in error.messages:
            assert MESSAGE.fullmatch(message), message
            assert SECRET not in message or "plugins" in message
    else:
        assert isinstance(config, Config)
        assert SECRET not in repr(config.written)


def test_the_shape_of_messages_holds_for_the_errors_above() -> None:
    check: Callable[[str], Any] = MESSAGE.fullmatch
    assert check("mutated.json:1:2: seed: got -1; use a number of at least 0")
    assert not check("seed: got -1") and not check("mutated.json:1:2: seed: a\nb; c")
