"""What is shown while rows are prepared: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import gzip
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from loguru import logger

from component.data import progress
from component.data.progress import RowProgress, estimate_rows


def test_how_many_rows_there_are_about(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(b'{"text": "some words of a row"}\n' * 200_000)
    assert lines.stat().st_size > progress._SAMPLE_BYTES
    assert estimate_rows([lines], None) == pytest.approx(200_000, rel=1e-4)
    assert estimate_rows([lines, lines], None) == pytest.approx(400_000, rel=1e-4)
    assert estimate_rows([lines], 50) == 50
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b"{}\n"))
    assert estimate_rows([lines, packed], None) is None
    assert estimate_rows([tmp_path / "a.json"], 7) == 7
    (tmp_path / "empty.csv").write_bytes(b"")
    assert estimate_rows([tmp_path / "empty.csv"], None) == 0


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]))
    try:
        with RowProgress("a.jsonl", done=1000, total=5000) as shown:
            shown.advance(500)
        with RowProgress("b.jsonl", done=0, total=None) as shown:
            shown.advance(20)
    finally:
        logger.remove(sink)
    assert lines[0].startswith("prepare a.jsonl: 1,500 of about 5,000 rows, ") and lines[0].endswith(" rows/s")
    assert lines[1].startswith("prepare b.jsonl: 20 rows, ")


PROGRAM = """
from component.data.progress import RowProgress
for total in (5000, None):
    with RowProgress("a.jsonl", done=1000, total=total) as shown:
        shown.advance(500)
"""


def test_a_bar_on_a_terminal(repository: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(repository), "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], stderr=theirs, env=environment, check=False)
    shown = os.read(ours, 2**16).decode()
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert "prepare a.jsonl" in shown and "1,500 rows" in shown and "rows/s" in shown
