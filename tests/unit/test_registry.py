"""The registry: lazy entries, plugins; and that its tables agree with what they name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from component.config.load import load_config
from component.data.formats.interface import KIND_TASKS
from component.registry import FORMATS, LOADERS, REWARDS, TASK_ROW_KINDS, TASKS, TEMPLATE_NAMES, TRUNCATIONS, Registry

ROOT = Path(__file__).resolve().parents[2]


def test_entries_are_imported_when_asked_for() -> None:
    registry = Registry("thing", {"path": "pathlib:Path", "broken": "no_such_module:X"})
    assert registry.names() == ("path", "broken")
    assert registry.get("path") is Path and registry.get("path") is Path
    with pytest.raises(ModuleNotFoundError):
        registry.get("broken")
    with pytest.raises(KeyError):
        registry.get("later")


def test_registering() -> None:
    registry = Registry("thing", {"one": "pathlib:Path"})

    @registry.register("two")
    class Two: ...

    assert registry.get("two") is Two
    registry.register("later")(Two)
    assert registry.names() == ("one", "two", "later")
    with pytest.raises(ValueError, match="thing 'one' exists already; choose another name"):
        registry.register("one")(Two)


def test_shipped_entries_exist() -> None:
    pytest.importorskip("transformers")
    conversations = ("firefly", "alpaca", "sharegpt", "openai", "qa", "prompt_completion", "segments")
    assert set(FORMATS.names()) == {*conversations, "text", "preference", "kto", "prompt_only"}
    assert LOADERS.names() == ("vanilla", "unsloth")
    assert TASKS.names() == ("pretrain", "sft", "dpo", "orpo", "cpo", "kto", "reward", "grpo")
    for registry in (FORMATS, LOADERS, TASKS, REWARDS):
        for name in registry.names():
            assert registry.get(name) is not None
    for name in TASKS.names():
        assert TASKS.get(name).name == name


def test_every_task_has_its_kind_of_rows() -> None:
    pytest.importorskip("transformers")
    assert set(TASK_ROW_KINDS) == set(TASKS.names())
    for name in TASKS.names():
        assert TASKS.get(name).row_kind == TASK_ROW_KINDS[name]
    kinds = set(TASK_ROW_KINDS.values())
    assert {FORMATS.get(name).row_kind for name in FORMATS.names()} == kinds == {"text", *TRUNCATIONS}
    for kind, tasks in KIND_TASKS.items():
        named = tasks.replace(" or ", ", ").split(", ")
        assert named == [task for task, of_task in TASK_ROW_KINDS.items() if of_task == kind]


def test_every_named_template_has_its_file_and_no_other_has() -> None:
    folder = ROOT / "component" / "data" / "chat_templates"
    assert sorted(path.stem for path in folder.glob("*.jinja")) == sorted(TEMPLATE_NAMES)
    assert len(set(TEMPLATE_NAMES)) == len(TEMPLATE_NAMES)


PLUGIN = """
from component.registry import FORMATS, LOADERS, TASKS

@FORMATS.register("my_format")
class MyFormat: ...

@LOADERS.register("my_loader")
def load(*args, **kwargs): ...

TASKS.register("my_task")(object())
"""


def test_a_plugin_adds_names_that_configs_can_use(tmp_path: Path) -> None:
    """In a process of its own: the tables are the process's."""
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "run.yaml").write_text(
        "plugins: plugin.py\nmodel_name_or_path: m\ntrain_file: d\n"
        "data_format: my_format\nmodel_loader: my_loader\ntask_type: my_task\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(ROOT / "train.py"), "--train_args_file", "run.yaml", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "run.yaml: valid; my_task, qlora, output to output/run\n"
    without = subprocess.run([*command, "plugins=[]"], capture_output=True, text=True, cwd=tmp_path)
    assert without.returncode == 2
    assert without.stderr.splitlines()[0].startswith('run.yaml:4:14: data_format: there is no "my_format"; ')


def test_a_plugin_is_executed_once(tmp_path: Path) -> None:
    counter = tmp_path / "count.txt"
    plugin = tmp_path / "counts.py"
    plugin.write_text(f"open({str(counter)!r}, 'a').write('x')\n", encoding="utf-8")
    config = {"model_name_or_path": "m", "train_file": "d", "output_dir": "o", "plugins": str(plugin)}
    load_config(config)
    load_config(config)
    assert counter.read_text(encoding="utf-8") == "x"
