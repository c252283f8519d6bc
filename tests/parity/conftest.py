"""Runs of the parity tests draw no pictures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _blank_pictures(blank_pictures: None) -> None:
    """Runs of the tests; those of fixtures draw."""
