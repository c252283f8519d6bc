"""Every config that is shipped passes the check and validates against the JSON Schema; none can be left out."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from component.config.keys import MODES, SHIPPED_TASKS
from component.config.load import load_config
from component.config.reference import json_schema_text
from component.models.families import Checkpoint, Family, checkpoints
from component.pipeline.family_table import family_page
from component.pipeline.hints import check_hints
from component.pipeline.shipped_configs import config_texts, write_configs, wrong_configs

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "train_args"

#: Written by hand; the others come from the table of model families.
DEMO = {
    "demo/pretrain.json",
    "demo/sft-qlora.json",
    "demo/dpo-qlora.json",
    "demo/kto-qlora.json",
    "demo/orpo-qlora.json",
    "demo/cpo-qlora.json",
    "demo/simpo-qlora.json",
    "demo/reward-qlora.json",
    "demo/grpo-qlora.json",
}
RUNS = DEMO | set(config_texts())
#: Files that others build on, one a task and one a mode, for scarce memory and long rows: complete but for mandatory
#: keys.
BASES = {f"base/{name}.json" for name in (*SHIPPED_TASKS, *MODES, "minimal_memory", "long_context")}
#: Configs of other programs.
FOREIGN = {"ds_z3_config.json"}


def shipped() -> list[str]:
    files = (path for path in FOLDER.rglob("*") if path.is_file())
    names = (path.relative_to(FOLDER).as_posix() for path in files)
    return sorted(name for name in names if not name.startswith("distributed/") and name not in FOREIGN)


def test_the_lists_are_complete() -> None:
    assert shipped() == sorted(RUNS | BASES)
    assert len(shipped()) == 102
    counts = Counter(name.rpartition("/")[0] for name in config_texts())
    assert counts == {
        "sft/qlora": 52, "sft/lora": 4, "sft/full": 4, "pretrain/qlora": 2, "pretrain/lora": 1, "pretrain/full": 2,
        "dpo/qlora": 2, "dpo/lora": 2, "dpo/full": 1, "orpo/qlora": 1, "orpo/lora": 1, "cpo/qlora": 1, "cpo/lora": 1,
        "kto/qlora": 1, "kto/lora": 1,
        "reward/qlora": 1, "reward/lora": 1, "grpo/qlora": 1, "grpo/lora": 1,
    }  # fmt: skip


def test_configs_are_what_the_table_of_families_says() -> None:
    """`python script/write_configs.py` writes them."""
    texts = config_texts()
    assert {name: (FOLDER / name).read_text(encoding="utf-8") for name in texts} == texts
    assert max(text.count("\n") for text in texts.values()) <= 15


def test_the_script_mends_what_differs(tmp_path: Path) -> None:
    assert len(write_configs(tmp_path)) == len(config_texts())
    assert write_configs(tmp_path) == []
    own, changed = tmp_path / "sft/qlora/mine.json", tmp_path / "sft/qlora/llama3-8b.json"
    own.write_text("{}", encoding="utf-8")
    changed.write_text("{}", encoding="utf-8")
    assert list(wrong_configs(tmp_path)) == [changed]
    assert write_configs(tmp_path) == [changed]
    assert own.read_text(encoding="utf-8") == "{}"
    assert changed.read_text(encoding="utf-8") == (FOLDER / "sft/qlora/llama3-8b.json").read_text(encoding="utf-8")


def test_the_page_of_families_is_what_the_table_says() -> None:
    page = (ROOT / "docs/families.md").read_text(encoding="utf-8")
    assert page == family_page(FOLDER), "run python script/write_docs.py"
    linked = re.findall(r"\]\(\.\./train_args/(.*?)\)", page)
    assert sorted(linked) == sorted(config_texts())


def test_the_readme_counts_what_there_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    models = [checkpoint for _, checkpoint in checkpoints()]
    counts = re.search(
        r"^\| models \| (\d+) configs for (\d+) models of (\d+) architectures", readme, flags=re.MULTILINE
    )
    assert counts is not None
    native = {family.model_type for family, _ in checkpoints()}
    assert tuple(map(int, counts.groups())) == (len(config_texts()), len(models), len(native))


#: Tasks and modes -> the learning rate that is trained with, on models of up to 10 billion parameters.
LEARNING_RATES = {
    ("sft", "qlora"): 2e-4, ("sft", "lora"): 2e-4, ("sft", "full"): 1e-5, ("pretrain", "qlora"): 2e-4,
    ("pretrain", "lora"): 2e-4, ("pretrain", "full"): 1e-5, ("dpo", "qlora"): 5e-6, ("dpo", "lora"): 5e-6,
    ("dpo", "full"): 5e-7, ("orpo", "qlora"): 8e-6, ("orpo", "lora"): 8e-6, ("cpo", "qlora"): 8e-6,
    ("cpo", "lora"): 8e-6, ("kto", "qlora"): 5e-6,
    ("kto", "lora"): 5e-6, ("reward", "qlora"): 1e-4, ("reward", "lora"): 1e-4, ("grpo", "qlora"): 5e-6,
    ("grpo", "lora"): 5e-6,
}  # fmt: skip


@pytest.mark.parametrize(("family", "checkpoint"), list(checkpoints()), ids=lambda value: getattr(value, "name", ""))
def test_settings_of_the_configs_of_a_model(family: Family, checkpoint: Checkpoint) -> None:
    """Whatever the layers make of it: task, mode, learning rate, rows a step and template."""
    names = [name for name in config_texts() if Path(name).stem == checkpoint.name]
    assert names
    for name in names:
        task, mode, _ = name.split("/")
        config = load_config(FOLDER / name)
        assert (config.model.task_type, config.model.train_mode) == (task, mode)
        assert config.model.model_name_or_path == checkpoint.hub_id
        rate = config.training.learning_rate
        if checkpoint.num_billions > 20:
            assert rate == 1e-4
        elif mode == "full" and task in ("sft", "pretrain") and checkpoint.num_billions <= 1:
            assert rate == 2e-5
        else:
            assert rate == LEARNING_RATES[task, mode]
        rows = config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
        assert rows == (16 if task != "pretrain" or checkpoint.num_billions > 2 and mode == "full" else 32)
        if task != "pretrain":
            assert config.data.template_name == checkpoint.template_name
        if task == "sft":
            assert config.data.append_stop_token is (family.model_type in ("glm4", "glm4_moe_lite"))


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_config_passes_the_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(f"train_args/{name}")
    assert config.notices == (), "shipped configs use current names, and no key that nothing reads"
    assert check_hints(config) == (), "and what is odd about them is meant"
    assert config.run.output_dir == f"output/{name.removesuffix('.json')}"
    files = [*config.data.train_file, *(config.data.eval_file or [])]
    assert [file for file in files if not Path(file).exists()] == []


@pytest.mark.parametrize("name", sorted(BASES))
def test_a_base_passes_the_check_once_the_mandatory_keys_are_there(name: str) -> None:
    config = load_config(FOLDER / name, ["model_name_or_path=m", "train_file=d"])
    assert config.notices == () == check_hints(config)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(json_schema_text()))


@pytest.mark.parametrize("name", sorted(RUNS | BASES))
def test_a_config_validates_against_the_schema(name: str, schema: jsonschema.Draft202012Validator) -> None:
    schema.validate(json.loads((FOLDER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_config_holds_differences_only(name: str) -> None:
    """No key says again what the files below it say."""
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    bases = content.get("base", [])
    if not bases:
        return
    below = [str((FOLDER / name).parent / base) for base in bases]
    lower = load_config({"base": below, "model_name_or_path": "m", "train_file": "d", "output_dir": "o"}).values
    assert [key for key, value in content.items() if key != "base" and lower[key] == value] == []


def test_other_configs_are_json() -> None:
    for name in FOREIGN:
        assert isinstance(json.loads((FOLDER / name).read_text(encoding="utf-8")), dict)
