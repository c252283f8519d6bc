"""A plan on the terminal: where the memory goes, how long it takes, and what fits other cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from component.artifacts.plan_facts import CardFacts, PlanFacts
from component.artifacts.terminal import name_value_table, render_blocks

if TYPE_CHECKING:
    from rich.table import Table

BAR_WIDTH = 32


def plan_card(facts: PlanFacts, *, color: bool, width: int) -> str:
    """Text of a plan.

    Args:
        color: the text goes to a terminal; else it has no control sequences, and no line is folded.
        width: of the terminal in characters.
    """
    from rich.text import Text

    def heading(title: str) -> Text:
        """The title of a block."""
        return Text(title, style="bold")

    blocks: list[Any] = [heading(facts.heading), name_value_table(facts.settings), ""]
    blocks += [heading(f"memory when most is allocated: {facts.moment}"), _parts_table(facts), ""]
    blocks += [heading("time and fit"), name_value_table(facts.summary), ""]
    blocks += [
        heading(facts.cards_title),
        _cards_table(facts.cards),
        *(Text(line, style="dim") for line in facts.legend),
    ]
    return render_blocks(blocks, color=color, width=width if color else None).strip("\n")


def gib(num_bytes: float) -> str:
    """Bytes in GiB with two digits."""
    return f"{num_bytes / 2**30:,.2f}"


def _parts_table(facts: PlanFacts) -> Table:
    table = _grid("left", "right", "left")
    for name, num_bytes in facts.parts:
        table.add_row(name, gib(num_bytes), "█" * round(BAR_WIDTH * num_bytes / facts.allocated_bytes))
    table.add_row("allocated", f"{gib(facts.allocated_bytes)} GiB", "", style="bold")
    table.add_row("reserved", f"{gib(facts.reserved_bytes)} GiB", "")
    return table


def _cards_table(cards: tuple[CardFacts, ...]) -> Table:
    table = _grid("left", "left", "right", "right", "left")
    table.add_row("card", "as planned", "reserved then", "speed then", "overrides", style="dim")
    for card in cards:
        if card.overrides is None:
            advice = (
                "none of these fits; see the notices, or take a smaller model, or more cards with fsdp or deepspeed"
            )
        else:
            advice = " ".join(card.overrides) or "as it is"
        speed = f"{card.tokens_per_second:,.0f} tokens/s" if card.tokens_per_second else ""
        memory = f"{gib(card.reserved_bytes)} GiB" if card.reserved_bytes is not None else ""
        table.add_row(card.name, card.verdict, memory, speed, advice)
        if card.obstacle is not None:
            table.add_row("", "", "", "", card.obstacle)
    return table


def _grid(*alignments: Any) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for place, alignment in enumerate(alignments):
        table.add_column(justify=alignment, no_wrap=place < len(alignments) - 1)
    return table
