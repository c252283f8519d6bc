"""The pages on hyperparameters and on Unsloth say what the tables in the code say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from component.config.choices import HINT_KEYS
from component.config.keys import MODES, SHIPPED_TASKS
from component.config.load import load_config
from component.config.schema import schema_fields
from component.config.usual import LEARNING_RATES
from component.models.families import FAMILIES
from component.models.support import TASKS, UNSLOTH_VERSION, why_unsupported
from component.pipeline.guide_tables import TABLES, fill_tables
from component.pipeline.shipped_configs import SHIPPED
from component.pipeline.unsloth_table import MODE_NOTES, unsloth_page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def guide() -> str:
    return (ROOT / "docs/hyperparameters.md").read_text(encoding="utf-8")


def test_the_numbers_of_the_guide_are_those_of_the_hints(guide: str) -> None:
    assert fill_tables(guide) == guide, "run python script/write_docs.py"
    assert re.findall(r"<!-- table: (\w+) -->", guide) == list(TABLES)
    betas = fill_tables("<!-- table: betas -->\nold\n<!-- end -->")
    assert betas.startswith("<!-- table: betas -->\n| task, or loss_type | beta |")
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", guide, flags=re.MULTILINE)
    assert [key for key in rows if key in HINT_KEYS] == list(HINT_KEYS)


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--check", 2)])
def test_the_script_writes_nothing_when_asked_for_help(option: str, code: int, tmp_path: Path) -> None:
    script = tmp_path / "script" / "write_docs.py"
    script.parent.mkdir()
    shutil.copy(ROOT / "script" / "write_docs.py", script)
    done = subprocess.run(
        [sys.executable, str(script), option],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and "usage: write_docs.py" in done.stdout + done.stderr
    assert not (tmp_path / "docs").exists()


def test_shipped_configs_use_what_the_guide_calls_usual() -> None:
    for task, mode in SHIPPED:
        bases = [str(ROOT / f"train_args/base/{name}.json") for name in (task, mode)]
        own = {"model_name_or_path": "-", "train_file": "-", "output_dir": "-"}
        config = load_config({"base": bases, **own})
        assert config.training.learning_rate == LEARNING_RATES[task].of(mode).usual, (task, mode)


def test_the_guide_names_keys_that_exist(guide: str) -> None:
    prose = re.sub(r"<!-- table: .*?<!-- end -->", "", guide, flags=re.DOTALL)
    named = set(re.findall(r"`(\w+): [^`]+`", prose))
    assert len(named) > 20
    assert named - {"rope_type"} <= set(schema_fields())


def test_the_page_on_unsloth_is_what_the_tables_say() -> None:
    page = (ROOT / "docs/unsloth.md").read_text(encoding="utf-8")
    assert page == unsloth_page(), "run python script/write_docs.py"
    assert set(MODE_NOTES) == set(MODES)
    for task in SHIPPED_TASKS:
        (row,) = re.findall(rf"^\| {task} \| (.*?) \|", page, flags=re.MULTILINE)
        assert row == ("yes" if TASKS[task] is None else f"no: {TASKS[task]}")
    for family in FAMILIES:
        if family.is_native:
            (cells,) = re.findall(rf"^\| `{family.model_type}` \| (.*) \|$", page, flags=re.MULTILINE)
            for task, cell in zip(SHIPPED_TASKS, cells.split(" | "), strict=True):
                assert (cell == "-") is (why_unsupported(family.model_type, task) is not None)


def test_the_tables_are_about_the_pinned_unsloth() -> None:
    pins = (ROOT / "requirements-unsloth.txt").read_text(encoding="utf-8")
    assert f"unsloth=={UNSLOTH_VERSION}\n" in pins and f"unsloth_zoo=={UNSLOTH_VERSION}\n" in pins
