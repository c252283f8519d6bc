"""`script/benchmark.py data --quick` runs every way of preparing conversations and writes its table."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from component.pipeline.benchmark import data_suite
from component.pipeline.benchmark.data_suite import Measured, Way, render_table, write_chat_rows


@pytest.fixture
def tokenizer(tiny_model: Path, test_assets: Path, tmp_path: Path) -> Path:
    """A tiny tokenizer with a template that TRL can mask."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "extra_special_tokens": ["<|im_start|>"]})
    template = test_assets / "tokenizers/qwen2.5/chat_template.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.pictures
def test_quick(repository: Path, tokenizer: Path, tmp_path: Path, run_python, monkeypatch, capsys) -> None:
    monkeypatch.setattr(data_suite, "subprocess", SimpleNamespace(run=run_python))
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the script adds to
    folder = tmp_path / "results"
    arguments = ["data", "--quick", "--tokenizer", str(tokenizer), "--output", str(folder)]
    monkeypatch.setattr(sys, "argv", ["script/benchmark.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path("script/benchmark.py", run_name="__main__")
    output = capsys.readouterr()
    assert (ended.value.code, output.err) == (0, "")
    assert (folder / "data.md").read_text(encoding="utf-8") == output.out
    assert (folder / "data.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    stages = {item["way"]["name"]: set(item["seconds"]) for item in results["ways"]}
    assert list(stages)[:5] == [
        "plain rendering + batched encoding",
        "Lampyris",
        "Lampyris, stage by stage",
        "apply_chat_template, row by row",
        "Firefly's way, turn by turn",
    ]
    assert [name for name in stages if name.startswith("TRL")][0] == "TRL, num_proc 1"
    assert stages["Lampyris"] == {"preparing", "packing", "total"}
    assert stages["Lampyris, stage by stage"] == {"reading", "rendering", "encoding"}
    assert stages["TRL, num_proc 1"] == {"reading", "maps and packing", "total"}
    assert results["facts"]["num_rows"] == 200 and results["facts"]["versions"]["trl"]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "data.json", "data.md", "data.png"]


def test_rows_are_about_as_long_as_chats_are(real_tokenizer: Callable[[str], Any], tmp_path: Path) -> None:
    write_chat_rows(tmp_path / "rows.jsonl", 1000)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = real_tokenizer("qwen2.5")
    texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in lines]
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    assert sum(lengths) / len(lengths) == pytest.approx(194, abs=10)
    assert min(lengths) < 80 and 600 < max(lengths) < 2048


def test_the_ratio_is_to_the_first_way_on_as_many_cores() -> None:
    def measured(name: str, seconds: float, *, one_core: bool) -> Measured:
        return Measured(Way(name, (), one_core), {"rendering": 0.5, "total": seconds}, 2 * seconds, 3 * 2**20, 2**20)

    table = render_table(
        [
            measured("plain", 2.0, one_core=True),
            measured("ours", 3.0, one_core=True),
            measured("plain", 1.0, one_core=False),
            measured("ours", 0.5, one_core=False),
        ],
        num_rows=3000,
    )
    assert table.splitlines()[2:] == [
        "| plain | one | 1,500 | 2.00 | 1.00 | 4.00 | 1.00 | 3 | 2 | rendering 0.50 |",
        "| ours | one | 1,000 | 3.00 | 1.50 | 6.00 | 1.50 | 3 | 2 | rendering 0.50 |",
        "| plain | all | 3,000 | 1.00 | 1.00 | 2.00 | 1.00 | 3 | 2 | rendering 0.50 |",
        "| ours | all | 6,000 | 0.50 | 0.50 | 1.00 | 0.50 | 3 | 2 | rendering 0.50 |",
    ]
