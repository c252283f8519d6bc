"""Imports run without searches for garbage, once; what is garbage later is found as before."""

from __future__ import annotations

import gc
import weakref

import pytest

from component.runtime import collection
from component.runtime.collection import importing


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(collection, "_imported", set())
    yield
    gc.unfreeze()


class Node:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.own = self


def test_nothing_is_searched_while_importing_and_what_came_is_left_out() -> None:
    before = gc.get_freeze_count()
    with importing("a"):
        assert not gc.isenabled()
        made = [Node() for _ in range(100)]
    assert gc.isenabled() and gc.get_freeze_count() >= before + len(made)


def test_a_second_time_nothing_is_left_out() -> None:
    with importing("a"):
        pass
    count = gc.get_freeze_count()
    with importing("a"):
        assert gc.isenabled()
        made = [Node() for _ in range(100)]
    assert gc.get_freeze_count() <= count and len(made) == 100


def test_later_garbage_is_found() -> None:
    with importing("a"):
        pass
    node = weakref.ref(Node())
    gc.collect()
    assert node() is None


def test_who_has_switched_it_off_finds_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.disable()
    try:
        with pytest.raises(KeyError), importing("a"):
            raise KeyError
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(KeyError), importing("a"):
        raise KeyError
    assert gc.isenabled()
