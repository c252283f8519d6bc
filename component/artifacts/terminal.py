"""Text for terminals and log files: tables, samples with their supervised parts marked, and no control sequences."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# Without colours, supervised text of a sample stands between these.
SUPERVISED_OPEN, SUPERVISED_CLOSE = "⟦", "⟧"
#: Width of a table that shall not be folded; of texts, rich's soft_wrap takes care.
_NO_FOLDING = 10_000


def legend(*, color: bool) -> str:
    """What marks supervised text, in words."""
    return "green is supervised" if color else f"{SUPERVISED_OPEN}supervised{SUPERVISED_CLOSE}"


def mark_supervised(pieces: Sequence[tuple[str, bool]], *, color: bool, max_piece_length: int | None = None) -> Text:
    """A sample's text, supervised pieces in green, or in brackets without colours; what cannot be shown is escaped.

    Args:
        pieces: text, and whether it is supervised.
        color: the text goes to a terminal.
        max_piece_length: longer pieces lose their middle.
    """
    from rich.text import Text

    text = Text()
    for piece, supervised in pieces:
        shown = printable(shorten(piece, max_piece_length))
        if color:
            text.append(shown, style="green" if supervised else "dim")
            continue
        for mark in (SUPERVISED_OPEN, SUPERVISED_CLOSE):  # the text's own must not be taken for ours
            shown = shown.replace(mark, ascii(mark)[1:-1])
        text.append(f"{SUPERVISED_OPEN}{shown}{SUPERVISED_CLOSE}" if supervised else shown)
    return text


def printable(text: str) -> str:
    r"""The text with \-escapes for what would move the cursor, recolour the terminal or not be seen."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """As `printable`, with line breaks escaped too."""
    return printable(text).replace("\n", "\\n")


def shorten(text: str, limit: int | None) -> str:
    """The text without its middle where it is longer than `limit` characters, and how many those are."""
    if limit is None or len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ... {len(text) - 2 * half:,} more characters ... {text[-half:]}"


def name_value_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Two columns, names in bold."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(printable(value)))
    return table


def render_blocks(blocks: Sequence[Any], *, color: bool, width: int | None) -> str:
    """Render what rich can print as lines of text.

    Args:
        color: the text goes to a terminal; else it has no control sequences.
        width: at which lines are folded, in characters; None folds none.
    """
    from rich.console import Console

    file = io.StringIO()
    console = Console(
        file=file,
        width=_NO_FOLDING if width is None else width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for block in blocks:
        console.print(block, soft_wrap=width is None)
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n"))


def uses_color() -> bool:
    """Whether stdout is a terminal whose user has not asked for none (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def terminal_width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns
