"""The CUDA allocator's settings: ours where nobody has set any, and only before torch is there to read them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from component.runtime import allocator
from component.runtime.allocator import (
    EXPANDABLE,
    REPEATABLE_WORKSPACE,
    SMALL_WORKSPACE,
    VARIABLES,
    WORKSPACE,
    allocator_settings,
    expand_segments,
    repeat_sums,
    segments_grow,
    shrink_workspaces,
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process on Linux without torch and without settings."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "release", lambda: "6.8.0-generic")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for name in (*VARIABLES, WORKSPACE):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)


def test_segments_grow_where_nothing_is_set() -> None:
    expand_segments()
    assert allocator_settings() == {VARIABLES[0]: EXPANDABLE}


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[1], "")
    assert segments_grow()
    expand_segments()
    assert allocator_settings()[VARIABLES[0]] == EXPANDABLE


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[1], "max_split_size_mb:64")
    expand_segments()
    assert allocator_settings() == {VARIABLES[1]: "max_split_size_mb:64"}


@pytest.mark.parametrize("case", ["unwanted", "torch is there", "below Windows"])
def test_where_it_is_left_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "torch is there":
        monkeypatch.setitem(sys.modules, "torch", sys)
    if case == "below Windows":
        monkeypatch.setattr(allocator.platform, "release", lambda: "5.15.0-microsoft-standard-WSL2")
    expand_segments(is_wanted=case != "unwanted")
    assert allocator_settings() == {}


@pytest.mark.parametrize(
    ("system", "release", "given", "grow"),
    [
        ("linux", "6.8.0-generic", None, True), ("linux", "5.15.0-microsoft-standard-WSL2", None, False),
        ("linux", "6.8.0-generic", "max_split_size_mb:64", False), ("darwin", "24.1.0", None, True),
        ("linux", "5.15.0-microsoft-standard-WSL2", f"{EXPANDABLE},roundup_power2_divisions:4", True),
    ],
)  # fmt: skip
def test_whether_segments_grow(system: str, release: str, given: str | None, grow: bool, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(allocator.platform, "release", lambda: release)
    if given:
        monkeypatch.setenv(VARIABLES[1], given)
    assert segments_grow() is grow
    assert segments_grow(is_wanted=False) is (grow and given is not None)


@pytest.mark.parametrize(("before", "after"), [(None, SMALL_WORKSPACE), (":4096:8", ":4096:8")])
def test_workspaces_shrink_where_memory_is_spared(before, after, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_workspaces(is_wanted=False)
    assert allocator_settings() == {}
    if before:
        monkeypatch.setenv(WORKSPACE, before)
    shrink_workspaces(is_wanted=True)
    assert allocator_settings() == {WORKSPACE: after}


@pytest.mark.parametrize(
    ("is_initialized", "num_bytes", "is_set"), [(True, 0, True), (True, 1, False), (False, 0, False)]
)
def test_workspaces_shrink_until_torch_has_taken_one(is_initialized, num_bytes, is_set, monkeypatch) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: is_initialized, memory_allocated=lambda: num_bytes)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    shrink_workspaces(is_wanted=True)
    assert allocator_settings() == ({WORKSPACE: SMALL_WORKSPACE} if is_set else {})


def test_determinism_decides_before_memory() -> None:
    """torch knows no other workspaces as deterministic, and looks once, at the first product."""
    repeat_sums(is_wanted=False)
    assert allocator_settings() == {}
    repeat_sums(is_wanted=True)
    shrink_workspaces(is_wanted=True)
    assert allocator_settings() == {WORKSPACE: REPEATABLE_WORKSPACE}
