"""What the parities over many chat templates share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from component.data.batch_encoding import BatchEncoder


@pytest.fixture(autouse=True)
def _blank_pictures(blank_pictures: None) -> None:
    """Runs of the tests; those of fixtures for many of them, such as finished_run, draw."""


@pytest.fixture(scope="module")
def shared_encoders() -> Iterator[None]:
    """All renderers of a tokenizer have one encoder: each new one would look at every token of the vocabulary first."""
    build, encoders = BatchEncoder.of, {}

    def find(tokenizer: Any) -> BatchEncoder:
        backend = tokenizer.backend_tokenizer
        # An added token makes another vocabulary.
        key = (backend, backend.get_vocab_size(), tokenizer.split_special_tokens)
        return encoders[key] if key in encoders else encoders.setdefault(key, build(tokenizer))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchEncoder, "of", find)
        yield
