"""Strict JSON and whole files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from component.artifacts.strict_json import restore_numbers, to_json_text, write_atomically
from component.config.errors import MachineError


@dataclass(frozen=True)
class Point:
    x: int
    where: Path


def test_values_get_their_json_form() -> None:
    value = {"b": (1, True, None), "a": {3, 1}, "n": numpy.float32(0.5), "p": Point(2, Path("a/b")), 7: math.inf}
    assert to_json_text(value) == (
        '{"b": [1, true, null], "a": [1, 3], "n": 0.5, "p": {"x": 2, "where": "a/b"}, "7": "Infinity"}'
    )


def test_another_type_is_a_bug() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        to_json_text({"x": object()})


@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.booleans() | st.none()))
def test_numbers_survive_strict_json(record: dict) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    back = restore_numbers(json.loads(to_json_text(record), parse_constant=refuse))
    assert repr(back) == repr(record)


@given(st.text(st.characters()))
def test_any_text_can_be_written(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.json"
    write_atomically(path, to_json_text(text))
    assert json.loads(path.read_text(encoding="utf-8")) == text


def test_lone_surrogates_are_escaped(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", to_json_text("\ud800"))
    assert (tmp_path / "a.json").read_bytes() == b'"\\ud800"'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(MachineError) as raised:
        write_atomically(path, "new")
    assert str(raised.value) == (
        f"{path}: cannot be written (No space left on device); free some space there, or choose another folder"
    )
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
