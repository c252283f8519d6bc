"""Layers: files in both languages, bases, overrides, old names, and where each value came from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import COMMAND_LINE, ConfigError, Place
from component.config.load import Config, default_output_dir, load_config

MINIMAL = {"model_name_or_path": "m", "train_file": "d.jsonl"}


def write(path: Path, text: str | dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return str(path)


def messages(source: str | dict[str, Any], *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_config(source, overrides)
    return list(error.value.messages)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_json_and_yaml_give_the_same(tmp_path: Path) -> None:
    text_json = """{
      "model_name_or_path": "012", "train_file": ["a.jsonl", "b \\u00e9.jsonl"], "output_dir": "no",
      "learning_rate": "2e-4", "lora_rank": 8.0, "bf16": "false", "tf32": null, "run_name": "12:30",
      "num_train_epochs": 1, "lr_scheduler_kwargs": {"a": [1, 2.5, true, null, "no"]}
    }"""
    text_yaml = """
model_name_or_path: 012
train_file: [a.jsonl, "b \\u00e9.jsonl"]
output_dir: no
learning_rate: 2e-4
lora_rank: 8.0
bf16: "false"
tf32: null
run_name: 12:30
num_train_epochs: 1
lr_scheduler_kwargs:
  a:
    - 1
    - 2.5
    - true
    - ~
    - no
"""
    from_json = load_config(write(tmp_path / "a.json", text_json))
    from_yaml = load_config(write(tmp_path / "a.yaml", text_yaml))
    assert from_json.values == from_yaml.values
    assert from_json.values["learning_rate"] == 2e-4
    assert from_json.values["model_name_or_path"] == "012"
    assert type(from_json.values["lora_rank"]) is int
    assert from_json.values["lr_scheduler_kwargs"] == {"a": [1, 2.5, True, None, "no"]}
    for name in ("model", "adapter", "data", "dpo", "kto", "orpo", "cpo", "reward", "generation", "run", "training"):
        assert getattr(from_json, name) == getattr(from_yaml, name)


def test_a_mapping_is_a_config_too(tmp_path: Path) -> None:
    from_file = load_config(write(tmp_path / "a.json", {**MINIMAL, "output_dir": "o", "seed": 7}))
    from_python = load_config({**MINIMAL, "output_dir": Path("o")}, {"seed": 7})
    assert from_python.values == from_file.values
    assert (from_python.path, from_file.path) == (None, str(tmp_path / "a.json"))
    assert from_python.places["seed"] == Place("arguments")


def test_bases_merge_in_order(tmp_path: Path) -> None:
    write(tmp_path / "base/low.yaml", "seed: 1\nlora_rank: 1\nlora_alpha: 1\nlr_scheduler_kwargs: {a: 1, b: {x: 1}}\n")
    write(tmp_path / "base/mid.json", {"base": "low.yaml", "lora_rank": 2, "train_file": ["x", "y"]})
    write(tmp_path / "base/other.json", {"lora_alpha": 3})
    file = write(
        tmp_path / "deep/run.json",
        {
            "base": ["../base/mid.json", "../base/other.json"],
            "model_name_or_path": "m",
            "train_file": ["z"],
            "lr_scheduler_kwargs": {"b": {"y": 2}, "c": 3},
        },
    )
    config = load_config(file, ["lr_scheduler_kwargs.b.x=9", "extra_training_args.ddp_bucket_cap_mb=5"])
    values = config.values
    assert (values["seed"], values["lora_rank"], values["lora_alpha"]) == (1, 2, 3)
    assert values["train_file"] == ["z"]
    assert values["lr_scheduler_kwargs"] == {"a": 1, "b": {"x": 9, "y": 2}, "c": 3}
    assert values["extra_training_args"] == {"ddp_bucket_cap_mb": 5}
    low, mid, other = (str(tmp_path / "base" / name) for name in ("low.yaml", "mid.json", "other.json"))
    assert config.places["seed"] == Place(low, 1, 1)
    assert config.places["lora_rank"] == Place(mid, 1, 22)
    assert config.places["lora_alpha"] == Place(other, 1, 2)
    assert config.places["lr_scheduler_kwargs"] == COMMAND_LINE
    assert "learning_rate" not in config.places


def test_a_base_that_two_files_share_is_read_for_each(tmp_path: Path) -> None:
    write(tmp_path / "common.json", {"seed": 1})
    write(tmp_path / "a.json", {"base": "common.json", "seed": 2})
    write(tmp_path / "b.json", {"base": "common.json"})
    file = write(tmp_path / "run.json", {**MINIMAL, "base": ["a.json", "b.json"]})
    assert load_config(file).values["seed"] == 1


def test_a_missing_base(tmp_path: Path) -> None:
    file = write(tmp_path / "run.json", '{"base": ["gone.json"]}')
    assert messages(file) == [
        f"{file}:1:11: base: no such file: {tmp_path}/gone.json; correct the path (a base is relative to its file)"
    ]


def test_a_cycle_of_bases(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", '{"base": "sub/two.yaml"}')
    two = write(tmp_path / "sub/two.yaml", "base:\n  - ../one.json\n")
    loop = "the files build on each other: one.json -> sub/two.yaml -> one.json"
    assert messages(one) == [f"{two}:2:5: base: {loop}; remove one link"]
    itself = write(tmp_path / "self.json", '{"base": "self.json"}')
    assert messages(itself) == [
        f"{itself}:1:10: base: the files build on each other: self.json -> self.json; remove one link"
    ]


@pytest.mark.parametrize(("value", "column"), [("3", 10), ("null", 10), ('{"a": 1}', 10), ("[true]", 11), ("[[]]", 11)])
def test_a_base_that_is_no_name(tmp_path: Path, value: str, column: int) -> None:
    file = write(tmp_path / "run.json", f'{{"base": {value}}}')
    assert messages(file) == [f'{file}:1:{column}: base: not a file name; write "base": ["base/sft.json"]']


@pytest.mark.parametrize("width", [1, 2])
def test_the_number_of_files_is_bounded(tmp_path: Path, width: int) -> None:
    """A chain of 150 files, and 2 ** 149 readings of the last one."""
    for index in range(150):
        write(tmp_path / f"{index}.json", {"base": [f"{index + 1}.json"] * width})
    write(tmp_path / "150.json", MINIMAL)
    at_last = tmp_path / f"{99}.json"
    assert messages("0.json") == [
        f"{at_last.name}:1:11: base: more than 100 files build on each other; use fewer bases"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    where = str(tmp_path)
    fix = "name a file that can be read"
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "latin.json").write_bytes(b'{"run_name":\n "\xe9"}')
    assert messages("gone.json") == [f"gone.json: no such file: {where}/gone.json; correct the path"]
    assert messages("folder.json") == [f"folder.json: cannot read {where}/folder.json: Is a directory; {fix}"]
    assert messages("a\0b.json") == [f"a\\u0000b.json: cannot read {where}/a\\u0000b.json: embedded null byte; {fix}"]
    assert messages("loop.json")[0].startswith(f"loop.json: cannot read {where}/loop.json: Too many levels of symbolic")
    assert messages("latin.json") == ["latin.json:2:1: not UTF-8 text; save the file as UTF-8"]
    named = "name a file that ends in .json, .yaml or .yml"
    assert messages("train_args") == [f"train_args: train_args is not a train_args file by its name; {named}"]
    assert messages("") == [f'"": an empty file name; {named}']


def test_overrides(tmp_path: Path) -> None:
    file = write(tmp_path / "run.json", {**MINIMAL, "seed": 1, "report_to": "wandb"})
    config = load_config(
        file,
        ["seed=2", "seed=3", "--lora_rank=0x8".replace("0x", ""), "train_file=[a, b]", "bf16=null", "run_name= a: b"],
    )
    values = config.values
    assert (values["seed"], values["lora_rank"], values["train_file"]) == (3, 8, ["a", "b"])
    assert (values["bf16"], values["run_name"], values["report_to"]) == (None, " a: b", ["wandb"])
    assert load_config(file, {"seed": 4}).values["seed"] == 4


@pytest.mark.parametrize("override", ["lora_rank", "=x", ".seed=1", "a.=1", "lr_scheduler_kwargs..a=1", "="])
def test_overrides_that_are_none(override: str) -> None:
    expected = [f"command line: {override}: not a KEY=VALUE; write it as lora_rank=16"]
    assert messages({**MINIMAL, "output_dir": "o"}, override) == expected


def test_a_second_file_is_no_override() -> None:
    fix = 'give one file, or name this one under its "base"'
    expected = [f"command line: other/Run.YAML: not a KEY=VALUE; {fix}"]
    assert messages({**MINIMAL, "output_dir": "o"}, "other/Run.YAML") == expected
    (problem,) = messages({**MINIMAL, "output_dir": "o"}, "deepspeed.=zero.json")
    assert problem.endswith("not a KEY=VALUE; write it as lora_rank=16")


@pytest.mark.parametrize("key", ["base", "$schema"])
def test_keys_of_files_in_overrides(key: str) -> None:
    problem = f"{key}: only a file can set it; write it in the train_args file"
    assert messages({**MINIMAL, "output_dir": "o"}, f"{key}=x.json") == [f"command line: {problem}"]
    with pytest.raises(ConfigError) as error:
        load_config({**MINIMAL, "output_dir": "o"}, {key: "x.json"})
    assert error.value.messages == (f"arguments: {problem}",)


def test_nesting_is_bounded_in_every_layer(tmp_path: Path) -> None:
    cycle: dict[str, Any] = {}
    cycle["a"] = [cycle]
    problem = "lr_scheduler_kwargs: nested deeper than 64 levels; flatten the value"
    base = {**MINIMAL, "output_dir": "o"}
    assert messages({**base, "lr_scheduler_kwargs": cycle}) == [f"config: {problem}"]
    assert messages(base, f"lr_scheduler_kwargs{'.a' * 400}=1") == [f"command line: {problem}"]
    file = write(tmp_path / "deep.json", '{"lr_scheduler_kwargs": ' + '{"a":' * 80 + "1" + "}" * 81)
    assert messages(file)[-1].endswith(problem)
    deepest = load_config(base, [f"lr_scheduler_kwargs{'.a' * 63}=1"])
    assert str(deepest.values["lr_scheduler_kwargs"]).count("{") == 63


def test_texts_that_are_not_unicode() -> None:
    problem = "run_name: not Unicode text; write it as UTF-8"
    assert messages({**MINIMAL, "output_dir": "o"}, "run_name=\udcff") == [f"command line: {problem}"]
    assert messages({**MINIMAL, "output_dir": "o", "run_name": "\ud800"}) == [f"config: {problem}"]


OLD_NAMES = [
    ("evaluation_strategy", "no", "eval_strategy", "no"),
    ("warmup_ratio", "0.1", "warmup_steps", 0.1),
    ("torch_dtype", "bfloat16", "dtype", "bfloat16"),
    ("no_cuda", "true", "use_cpu", True),
    ("per_gpu_train_batch_size", "3", "per_device_train_batch_size", 3),
]


@pytest.mark.parametrize(("old", "text", "new", "value"), OLD_NAMES)
def test_old_names_are_read_with_one_notice(old: str, text: str, new: str, value: Any) -> None:
    config = load_config({**MINIMAL, "output_dir": "o"}, [f"{old}={text}"])
    assert config.values[new] == value
    assert list(map(str, config.notices)) == [f"command line: {old}: an old name, read as {new}; write {new}"]


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("optim", "adamw_hf", "adamw_torch"),
        ("optim", "paged_adamw", "paged_adamw_32bit"),
        ("report_to", "all", "tensorboard"),
    ],
)
def test_old_values_are_read_with_one_notice(tmp_path: Path, key: str, old: str, new: str) -> None:
    file = write(tmp_path / "run.yaml", f"model_name_or_path: m\ntrain_file: d\n{key}: {old}\n")
    config = load_config(file)
    assert config.values[key] in (new, [new])
    column = len(key) + 3
    notice = f"{key}: {old} is an old name, read as {new}; write {new}"
    assert list(map(str, config.notices)) == [f"{file}:3:{column}: {notice}"]


def test_old_values_in_lists() -> None:
    config = load_config({**MINIMAL, "output_dir": "o", "report_to": ["wandb", "all"]})
    assert config.values["report_to"] == ["wandb", "tensorboard"]
    assert len(config.notices) == 1


def test_keys_that_transformers_dropped_are_left_out_with_one_notice() -> None:
    config = load_config({**MINIMAL, "output_dir": "o", "overwrite_output_dir": True, "do_train": "whatever"})
    assert list(map(str, config.notices)) == [
        "config: do_train: ignored; train.py always trains",
        "config: overwrite_output_dir: ignored; a finished or different run is never overwritten; "
        "choose another output_dir",
    ]


@pytest.mark.parametrize("value", [True, False])
def test_the_switch_of_unsloths_users_for_sharegpt_rows_changes_nothing(value: bool) -> None:
    config = load_config({**MINIMAL, "output_dir": "o", "use_sharegpt_mapping": value})
    assert config.data.data_format == "auto"
    assert list(map(str, config.notices)) == [
        "config: use_sharegpt_mapping: ignored; the format of rows is recognised, sharegpt's among them; "
        "data_format names it"
    ]


def test_old_names_across_layers(tmp_path: Path) -> None:
    write(tmp_path / "old.json", {"warmup_ratio": 0.1})
    write(tmp_path / "new.json", {"warmup_steps": 7})
    later_new = write(tmp_path / "a.json", {**MINIMAL, "base": "old.json", "warmup_steps": 5})
    later_old = write(tmp_path / "b.json", {**MINIMAL, "base": "new.json", "warmup_ratio": 0.2})
    assert load_config(later_new).values["warmup_steps"] == 5
    assert load_config(later_old).values["warmup_steps"] == 0.2
    assert load_config(later_old, ["warmup_steps=9"]).values["warmup_steps"] == 9


def test_old_and_new_name_in_one_layer(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", '{"warmup_steps": 1,\n "warmup_ratio": 0.1}')
    assert messages(file, "model_name_or_path=m", "train_file=d") == [
        f"{file}:2:2: warmup_ratio: an old name of warmup_steps, which is set too; keep one of them"
    ]


@pytest.mark.parametrize("value", ["1", "1.0", '"100"', "5"])
def test_a_ratio_is_not_read_as_a_count(tmp_path: Path, value: str) -> None:
    file = write(tmp_path / "a.json", f'{{"model_name_or_path": "m", "train_file": "d",\n "warmup_ratio": {value}}}')
    shown = value.strip('"')
    assert messages(file) == [
        f"{file}:2:18: warmup_ratio: got {shown}, and warmup_ratio is a share below 1; "
        "write warmup_steps for a number of steps"
    ]


def test_default_output_dir(tmp_path: Path) -> None:
    assert default_output_dir("train_args/sft/qlora/llama3-8b.json") == "output/sft/qlora/llama3-8b"
    assert default_output_dir("/home/me/train_args/a/train_args/b.v2.yaml") == "output/b.v2"
    assert default_output_dir("my.yaml") == default_output_dir(str(tmp_path / "my.yaml")) == "output/my"
    for path in ("mine/run.json", "./mine/run.json", "other/../mine/run.json", str(tmp_path / "mine" / "run.json")):
        assert default_output_dir(path) == "output/mine/run", path
    assert default_output_dir("other/run.json") == "output/other/run"
    assert default_output_dir("/mine/run.json") == "output/mine/run"
    assert default_output_dir("../run.json") == f"output{tmp_path.parent}/run"


def test_sections_are_frozen_and_typed(tmp_path: Path) -> None:
    config: Config = load_config({**MINIMAL, "output_dir": "o", "lora_rank": "8"})
    assert config.adapter.lora_rank == 8
    assert config.data.train_file == ["d.jsonl"]
    for section in (config.model, config.adapter, config.data, config.training, config.run, config.generation):
        assert dataclasses.is_dataclass(section)
        with pytest.raises(dataclasses.FrozenInstanceError):
            section.seed = 3  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model = None  # type: ignore[misc]


def test_switches_of_others_are_read_as_the_quantization() -> None:
    config = load_config({**MINIMAL, "output_dir": "o", "load_in_8bit": True, "load_in_4bit": False})
    assert config.model.quantization == "int8"
    assert [str(notice) for notice in config.notices] == [
        "config: load_in_4bit: ignored; train_mode and quantization say what is done",
        "config: load_in_8bit: read as quantization: int8; write quantization",
    ]
    with pytest.raises(ConfigError) as error:
        load_config({**MINIMAL, "output_dir": "o", "load_in_8bit": True, "quantization": "int4"})
    assert error.value.messages == (
        "config: load_in_8bit: another way to write quantization, which is set too; keep one of them",
    )


def test_a_switch_that_is_off_is_never_done_all_the_same(tmp_path: Path) -> None:
    base = write(tmp_path / "base.json", {**MINIMAL, "output_dir": "o", "load_in_4bit": False})
    file = write(tmp_path / "run.json", {"base": base})
    assert messages(file) == [
        f"{base}:1:73: load_in_4bit: it is false, and train_mode: qlora loads the base in 4 bit; "
        "set train_mode: lora for a 16-bit base, or drop load_in_4bit"
    ]
    again = messages(write(tmp_path / "on.json", {"base": base, "load_in_4bit": True}), "load_in_4bit=false")
    assert [message.partition(";")[0] for message in again] == [
        "command line: load_in_4bit: it is false, and train_mode: qlora loads the base in 4 bit"
    ]
    (problem,) = messages(file, "quantization=int8", "load_in_8bit=false")
    assert problem.startswith("command line: load_in_8bit: it is false, and train_mode: qlora loads the base in 8 bit;")
    for fine in (["train_mode=lora"], ["train_mode=full"], ["quantization=int8"], ["load_in_4bit=true"]):
        assert load_config(file, fine).values["output_dir"] == "o", fine


NO_LIST = 'write \'{key}=["one", "two"]\', with texts in double quotes'


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ('new_tokens=["<tool>"', "a list of text: the bracket is never closed (at character 1)", NO_LIST),
        ('new_tokens=["<a>" "<b>"]', "a list of text: expected ',' or ']' here (at character 8)", NO_LIST),
        ('new_tokens=["<a>', "a list of text: the quote is never closed (at character 2)", NO_LIST),
        ('new_tokens= ["<a>"] # x', "a list of text: more text follows its end", NO_LIST),
        ('train_file=["a.jsonl", "b.jsonl"', "a list of text: the bracket is never closed (at character 1)", NO_LIST),
        (
            "mixture_weights=[1, 2",
            "a list of numbers: the bracket is never closed (at character 1)",
            "write '{key}=[1, 2]', with texts in double quotes",
        ),
        (
            'columns={"prompt": "a"',
            "a mapping of text to text: the bracket is never closed (at character 1)",
            'write \'{key}={{"key": "value"}}\', with texts in double quotes',
        ),
    ],
)
def test_a_list_on_the_command_line_that_cannot_be_read(override: str, what: str, fix: str) -> None:
    """It would else be one text, and the only item of the list."""
    key, _, text = override.partition("=")
    said = f"command line: {key}: {text.strip()} cannot be read as {what}; {fix.format(key=key)}"
    source = {key: value for key, value in MINIMAL.items() if not override.startswith(key)}
    assert messages(source, "output_dir=o", override) == [said]


def test_texts_that_begin_with_a_bracket(tmp_path: Path) -> None:
    """Quoted ones in a list, what a key of text is given, patterns of file names, and what a file or Python has."""
    settings = {**MINIMAL, "output_dir": "o", "new_tokens": "[TOOL_CALLS]"}
    for source in (settings, write(tmp_path / "a.json", settings)):
        assert load_config(source).values["new_tokens"] == ["[TOOL_CALLS]"]
    from_yaml = write(tmp_path / "a.yaml", "model_name_or_path: m\ntrain_file: d\nnew_tokens: '[\"<a>\"'\n")
    assert load_config(from_yaml).values["new_tokens"] == ['["<a>"']
    for override, value in (
        ('new_tokens=["[TOOL_CALLS]"]', ["[TOOL_CALLS]"]),
        ('new_tokens="[TOOL_CALLS"', ["[TOOL_CALLS"]),
        ("train_file=[0-9]*.jsonl", ["[0-9]*.jsonl"]),
        ("default_system=[INST] {{ x }", "[INST] {{ x }"),
        ("template_name=[a.jinja", "[a.jinja"),
    ):
        assert load_config(settings, [override]).values[override.partition("=")[0]] == value
