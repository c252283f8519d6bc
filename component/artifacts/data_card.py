"""Prepared data on the terminal: samples with their supervised tokens marked, counts, lengths, the rows to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from component.artifacts.data_facts import DataFacts, DroppedRows, ShownSample, SplitFacts, shorten_pieces
from component.artifacts.histogram import bar_lines
from component.artifacts.terminal import legend, mark_supervised, name_value_table, one_line, render_blocks

if TYPE_CHECKING:
    from rich.text import Text

MAX_PIECE_LENGTH = 400


def data_card(facts: DataFacts, *, color: bool, width: int, whole_samples: bool = False) -> str:
    """Text of all that is known of prepared data.

    Args:
        color: the text goes to a terminal; else it has no control sequences, and no line is folded.
        width: of the terminal in characters.
        whole_samples: leave nothing out of the samples, however long they are.
    """
    blocks: list[Any] = []
    if facts.samples:
        blocks += [*_section(f"samples: {legend(color=color)}, and \\-escapes stand for what cannot be shown")]
        for sample in facts.samples:
            blocks += _sample_blocks(sample, color=color, is_whole=whole_samples)
    if facts.rendering:
        blocks += [*_section("rendering"), name_value_table(facts.rendering)]
    for split in facts.splits:
        blocks += _split_blocks(split)
    return render_blocks(blocks, color=color, width=width if color else None).strip("\n")


def _sample_blocks(sample: ShownSample, *, color: bool, is_whole: bool) -> list[Any]:
    blocks: list[Any] = ["", _bold(str(sample.row))]
    for name, pieces in sample.parts:
        shown = pieces if is_whole else shorten_pieces(pieces)
        limit = None if is_whole else MAX_PIECE_LENGTH
        blocks += [f"{name}:"] if name else []
        blocks.append(mark_supervised(shown, color=color, max_piece_length=limit))
    return blocks


def _split_blocks(split: SplitFacts) -> list[Any]:
    blocks = [*_section(split.name), name_value_table(split.numbers)]
    lists = (
        ("tokens in a sample, and how many samples have them", bar_lines(split.bins)),
        ("longest", [str(row) for row in split.longest]),
        ("least supervised", [str(row) for row in split.least_supervised]),
        *split.others,
        ("dropped", [line for rows in split.dropped for line in _dropped_lines(rows)]),
    )
    for name, lines in lists:
        if lines:
            blocks += [*_section(f"{split.name}: {name}"), *(f"  {one_line(line)}" for line in lines)]
    return blocks


def _dropped_lines(rows: DroppedRows) -> list[str]:
    more = rows.count - len(rows.examples)
    lines = [f"{rows.count:,} {rows.reason}", *(f"  {example}" for example in rows.examples)]
    return [*lines, *([f"  and {more:,} more"] if more else [])]


def _section(title: str) -> tuple[Any, ...]:
    return "", _bold(title)


def _bold(text: str) -> Text:
    from rich.text import Text

    return Text(one_line(text), style="bold")
