"""Fixtures that several tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def test_assets() -> Path:
    """Real tokenizers, chat templates and datasets; the test is skipped where they are absent."""
    folder = Path(os.environ.get("LAMPYRIS_TEST_ASSETS", REPOSITORY.parent / "shared"))
    if not (folder / "tokenizers").is_dir():
        pytest.skip(f"test assets are not at {folder}; set LAMPYRIS_TEST_ASSETS")
    return folder
