"""metrics.jsonl: written, cut back, read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from component.artifacts.metrics import MetricsWriter, read_metrics
from component.config.errors import MachineError, UserError


def test_records_come_back_in_order(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    records = [{"step": 1, "loss": 2.5, "text": "a\u2028b"}, {"step": 1, "eval_loss": 2.25}, {"step": 2, "loss": 1e-9}]
    for record in records:
        writer.write(record)
    assert read_metrics(tmp_path) == records
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 3


def test_non_finite_values_are_strict_json(tmp_path: Path) -> None:
    MetricsWriter(tmp_path).write({"step": 3, "loss": math.nan, "grad_norm": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"step": 3, "loss": "NaN", "grad_norm": "Infinity"}\n'
    (record,) = read_metrics(tmp_path)
    assert math.isnan(record["loss"]) and record["grad_norm"] == math.inf


@given(steps=st.lists(st.integers(0, 50)), cut=st.integers(0, 50), half=st.sampled_from(["", '{"step": 4', "{"]))
def test_cutting_back_keeps_exactly_the_earlier_records(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], cut: int, half: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps) + half)
    writer = MetricsWriter(folder)
    assert writer.cut_back(cut) == sum(step > cut for step in steps)
    writer.write({"step": 99})
    assert [record["step"] for record in read_metrics(folder)] == [*(step for step in steps if step <= cut), 99]


def test_a_half_line_does_not_swallow_the_next_record(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    MetricsWriter(tmp_path).write({"step": 2})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_nothing_to_cut_back(tmp_path: Path) -> None:
    assert MetricsWriter(tmp_path).cut_back(5) == 0


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(UserError) as caught:
        read_metrics(tmp_path)
    assert str(caught.value) == f"{path}:2: not a metrics record; remove the line"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"step": "x"}', 'step: got "x"'),
        ('{"step": 1.5}', "step: got 1.5"),
        ('{"step": 1, "loss": "zork"}', 'loss: got "zork"'),
        ('{"step": 1, "loss": null}', "loss: got null"),
        ('{"step": 1, "eval_loss": [1]}', "eval_loss: got [1]"),
        ('{"step": 1, "learning_rate": true}', "learning_rate: got true"),
    ],
)
def test_a_value_that_is_no_number_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": "NaN"}}\n{line}\n')
    for use in (read_metrics, lambda folder: MetricsWriter(folder).cut_back(0)):
        with pytest.raises(UserError) as caught:
            use(tmp_path)
        assert str(caught.value) == f"{path}:2: {what}, which is no number; remove the line"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = MetricsWriter.__new__(MetricsWriter)  # its constructor reads the file, and this one has no end
    writer.path = tmp_path / "metrics.jsonl"
    with pytest.raises(MachineError, match=r"metrics.jsonl: cannot be written \(No space left on device\); free some"):
        writer.write({"step": 1})


def test_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: cannot be read \(No such file or directory\); name the folder"
    ):
        read_metrics(tmp_path)
