"""Every config that is shipped passes the check and validates against the JSON Schema; none can be left out."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from component.config.load import load_config
from component.config.reference import json_schema_text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "train_args"

#: All configs; a new one is added here.
RUNS = {
    "demo/pretrain.json",
    "demo/sft-qlora.json",
    "sft/qlora/gemma-2b.json",
    "sft/qlora/llama3-8b.json",
    "sft/qlora/mistral-7b.json",
    "sft/qlora/qwen2.5-7b.json",
    "sft/qlora/tinyllama.json",
}
#: Files that others build on: complete but for the mandatory keys.
BASES = {"base/qlora.json", "base/sft.json"}
#: Configs of other programs.
FOREIGN = {"ds_z3_config.json"}


def shipped() -> list[str]:
    files = (path for path in FOLDER.rglob("*") if path.is_file())
    names = (path.relative_to(FOLDER).as_posix() for path in files)
    return sorted(name for name in names if not name.startswith("distributed/") and name not in FOREIGN)


def test_the_lists_are_complete() -> None:
    assert shipped() == sorted(RUNS | BASES)
    assert len(shipped()) == 9


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_config_passes_the_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(f"train_args/{name}")
    assert config.notices == (), "shipped configs use current names, and no key that nothing reads"
    assert config.run.output_dir == f"output/{name.removesuffix('.json')}"
    files = [*config.data.train_file, *(config.data.eval_file or [])]
    assert [file for file in files if not Path(file).exists()] == []


@pytest.mark.parametrize("name", sorted(BASES))
def test_a_base_passes_the_check_once_the_mandatory_keys_are_there(name: str) -> None:
    config = load_config(FOLDER / name, ["model_name_or_path=m", "train_file=d"])
    assert config.notices == ()


@pytest.mark.parametrize("name", sorted(RUNS | BASES))
def test_a_config_validates_against_the_schema(name: str) -> None:
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    jsonschema.validate(content, json.loads(json_schema_text()))


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
