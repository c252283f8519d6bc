"""What text is a number, true, false or null: the core schema of YAML 1.2, for files, command line and quoted values.

Two differences, both on the strict side: a number has no leading zeros (`012` is text), and infinities and NaN are
none.
Source: YAML 1.2.2, section 10.3.2.
"""

from __future__ import annotations

import math
import re
from typing import Any

MAX_DIGITS = 1000
"""Digits of the longest number that is read; Python itself refuses a few thousand."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, Any] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def number_from_text(text: str) -> int | float | None:
    """Return the number that `text` spells, None when it spells none, infinity when it is too large to hold."""
    if len(text) > MAX_DIGITS:
        return math.inf if _FLOAT.fullmatch(text) or _OCTAL_OR_HEX.fullmatch(text) else None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return None


def scalar_from_text(text: str) -> Any:
    """Return the value of an unquoted YAML scalar: None, bool, int, float, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    number = number_from_text(text)
    return text if number is None else number


def is_not_finite(text: str) -> bool:
    """Whether `text` is YAML's spelling of an infinity or NaN, which no config value may be."""
    return _NOT_FINITE.fullmatch(text) is not None
