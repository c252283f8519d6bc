"""Values that came from environment variables are shown as they are written in the config, wherever text goes out."""

from __future__ import annotations

from collections.abc import Mapping

#: Shorter values are words that stand everywhere; hiding them would garble messages without hiding anything.
MIN_LENGTH = 6
#: Absolute paths are no secrets, and a message about a missing file has to show them.
PATH_BEGINNINGS = ("/", "~")

_shown: dict[str, str] = {}


def hide(values: Mapping[str, str]) -> None:
    """Have `redact` replace texts from now on: value -> what is shown instead; short values and paths stay."""
    for value, shown in values.items():
        if len(value) >= MIN_LENGTH and not value.startswith(PATH_BEGINNINGS):
            _shown[value] = shown


def redact(text: str) -> str:
    """Replace every hidden value in a text, the longest first."""
    for value in sorted(_shown, key=len, reverse=True):
        text = text.replace(value, _shown[value])
    return text
