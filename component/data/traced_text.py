"""Text that remembers, for each of its characters, which message it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

TEMPLATE = "\0"
ROW = "\1"
UNOWNED = TEMPLATE + ROW
GENERATED = 0x80000  # added to an origin's code point inside a `{% generation %}` block


class TracedText(str):
    """A `str` with an origin per character that survives what chat templates do to text.

    `origin` is a string as long as the text: `TEMPLATE` for a character that the template wrote, `message_origin(i)`
    for one that came from message i, `ROW` for one of the row that is no message's own: tools, names. Slicing,
    concatenation, stripping, splitting, joining, replacing and changing case keep it; any other operation returns a
    plain `str`, which counts as the template's own text. Losing an origin so can make a span unprovable, never wrong.
    """

    __slots__ = ("origin",)
    origin: str

    def __new__(cls, text: str, origin: str | None = None) -> TracedText:
        """Args: text; its origins, or None for text of the template."""
        traced = str.__new__(cls, text)
        traced.origin = TEMPLATE * len(text) if origin is None else origin
        assert len(traced.origin) == len(text)
        return traced

    def __str__(self) -> str:
        return self

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return str.__ne__(self, other)

    def __add__(self, other: str) -> TracedText:
        return TracedText(str.__add__(self, other), self.origin + origin_of(other))

    def __radd__(self, other: str) -> TracedText:
        return TracedText(str.__add__(other, self), origin_of(other) + self.origin)

    def __mul__(self, count: SupportsIndex) -> TracedText:
        return TracedText(str.__mul__(self, count), self.origin * count)

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> TracedText:
        return TracedText(str.__getitem__(self, key), self.origin[key])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def lstrip(self, chars: str | None = None) -> TracedText:
        """As of `str`; every character keeps its origin."""
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> TracedText:
        """As of `str`; every character keeps its origin."""
        return self[: len(str.rstrip(self, chars))]

    def strip(self, chars: str | None = None) -> TracedText:
        """As of `str`; every character keeps its origin."""
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> TracedText:
        """As of `str`; every character keeps its origin."""
        return self[len(prefix) :] if str.startswith(self, prefix) else self

    def removesuffix(self, suffix: str) -> TracedText:
        """As of `str`; every character keeps its origin."""
        return self[: len(self) - len(suffix)] if str.endswith(self, suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """As of `str`, into traced pieces."""
        return self._pieces(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """As of `str`, into traced pieces."""
        return self._pieces(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        """As of `str`, into traced lines."""
        pieces, position = [], 0
        for line in str.splitlines(self, keepends=True):
            kept = line if keepends else str.splitlines(line)[0]
            pieces.append(self[position : position + len(kept)])
            position += len(line)
        return pieces

    def partition(self, sep: str) -> tuple[str, str, str]:
        """As of `str`, into traced parts."""
        return self._parted(str.find(self, sep), sep, missing=(self, TracedText(""), TracedText("")))

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        """As of `str`, into traced parts."""
        return self._parted(str.rfind(self, sep), sep, missing=(TracedText(""), TracedText(""), self))

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        """As of `str`; what is put in has the origin of `new`."""
        if not old:  # inserts `new` between all characters; no template does, so it may lose its origin
            return str.replace(self, old, new, count)
        return join_traced(new, self.split(old, count))

    def join(self, parts: Iterable[str]) -> TracedText:
        """As of `str`; separators have the origin of this text, parts their own."""
        return join_traced(self, parts)

    def lower(self) -> TracedText:
        """As of `str`, with the origins of the characters that were."""
        return self._recased(str.lower(self))

    def upper(self) -> TracedText:
        """As of `str`, with the origins of the characters that were."""
        return self._recased(str.upper(self))

    def title(self) -> TracedText:
        """As of `str`, with the origins of the characters that were."""
        return self._recased(str.title(self))

    def capitalize(self) -> TracedText:
        """As of `str`, with the origins of the characters that were."""
        return self._recased(str.capitalize(self))

    def plain(self, start: int = 0, end: int | None = None) -> str:
        """The characters from `start` to `end` as an ordinary `str`."""
        return str.__getitem__(self, slice(start, end))

    def _pieces(self, pieces: list[str], sep: str | None) -> list[str]:
        """The pieces of a split in their order, each with its origin; without `sep` they lie between whitespace."""
        traced, position = [], 0
        for piece in pieces:
            start = str.index(self, piece, position) if sep is None else position
            traced.append(self[start : start + len(piece)])
            position = start + len(piece) + (len(sep) if sep is not None else 0)
        return traced

    def _parted(self, index: int, sep: str, *, missing: tuple[str, str, str]) -> tuple[str, str, str]:
        if index < 0:
            return missing
        return self[:index], self[index : index + len(sep)], self[index + len(sep) :]

    def _recased(self, text: str) -> TracedText:
        return TracedText(text, self.origin if len(text) == len(self) else None)


def message_origin(index: int) -> str:
    """The origin character of message `index`, counted from 0."""
    return chr(index + len(UNOWNED))


def message_of(origin: str) -> int | None:
    """The index of the message that an origin character stands for; None for what is no message's."""
    index = ord(origin) % GENERATED - len(UNOWNED)
    return index if index >= 0 else None


def origin_of(text: str) -> str:
    """The origins of `text`, one per character; a plain `str` is the template's."""
    return text.origin if isinstance(text, TracedText) else TEMPLATE * len(text)


def join_traced(separator: str, parts: Iterable[Any]) -> TracedText:
    """`separator.join(parts)` that keeps origins; parts that are no text are converted with `str`."""
    texts = [part if isinstance(part, str) else str(part) for part in parts]
    return TracedText(str.join(separator, texts), str.join(origin_of(separator), map(origin_of, texts)))


def mark_generated(text: str) -> TracedText:
    """`text` with every origin moved into the range from `GENERATED` on."""
    return TracedText(text, "".join(chr(ord(origin) % GENERATED + GENERATED) for origin in origin_of(text)))


def unmark_generated(text: TracedText) -> TracedText:
    """`text` with every origin as it is outside of `{% generation %}` blocks."""
    return TracedText(text, "".join(chr(ord(origin) % GENERATED) for origin in text.origin))
