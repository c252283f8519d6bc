"""docs/rewards.md: its table names every reward with its arguments, and its examples work."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from component.config.load import load_config
from component.data.rows import Source
from component.registry import REWARDS
from component.trainers.rewards.interface import Completion
from component.trainers.rewards.load import load_rewards


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/rewards.md").read_text(encoding="utf-8")


def test_the_table(page: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, flags=re.MULTILINE))
    assert set(rows) == set(REWARDS.names())
    for name, arguments in rows.items():
        fields = {item.name for item in dataclasses.fields(REWARDS.get(name)) if item.name != "column" or item.default}
        assert set(re.findall(r"`(\w+)`", arguments)) == fields, name


def test_the_examples(page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row, config), (function,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("json", "python"))
    monkeypatch.chdir(tmp_path)
    Path("rewards.py").write_text(function, encoding="utf-8")
    folder = tmp_path / "train_args/grpo/lora"
    folder.mkdir(parents=True)
    (tmp_path / "train_args/base").symlink_to(repository / "train_args/base")
    (folder / "mine.json").write_text(config, encoding="utf-8")
    *_, polite = load_rewards(load_config(folder / "mine.json").grpo)
    prompt, columns = json.loads(row)["prompt"], {"solution": json.loads(row)["solution"]}
    completions = [Completion(text, (1,), prompt, columns, Source("f", 1)) for text in ("Yes, please.", "No.")]
    assert polite.score(completions) == [1.0, 0.0]
