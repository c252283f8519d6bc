"""Compiled kernels stay in one place, whatever is imported meanwhile."""

from __future__ import annotations

import os

import pytest

from component.runtime.cache_folder import cache_folder
from component.runtime.compile_caches import VARIABLE, keeping_kernels


@pytest.mark.parametrize("own", [None, "/elsewhere"])
def test_an_import_cannot_move_them(monkeypatch, own: str | None) -> None:
    monkeypatch.setenv(VARIABLE, own or "")
    with keeping_kernels():
        assert os.environ[VARIABLE] == (own or str(cache_folder("torchinductor")))
        os.environ.pop(VARIABLE)
    assert os.environ[VARIABLE] == (own or str(cache_folder("torchinductor")))
