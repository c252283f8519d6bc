"""What people are shown of a plan: names, bytes and words, ready for a terminal or a picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CardFacts:
    """A card and what fits it.

    Attributes:
        name: of the card, with its memory.
        verdict: on the config as it is.
        obstacle: why the installed torch does not serve it; None where it does or nothing is known.
        overrides: KEY=VALUE that make it fit; None where nothing tried does.
        reserved_bytes, tokens_per_second: with these.
    """

    name: str
    verdict: str
    obstacle: str | None
    overrides: tuple[str, ...] | None
    reserved_bytes: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class PlanFacts:
    """A plan.

    Attributes:
        title: of the picture, and heading: of the text.
        settings: name and value of what the plan stands on.
        parts: what lies on the device at the peak, and bytes of it.
        moment: when that is.
        allocated_bytes, reserved_bytes: in torch's own counting.
        memory_bytes: of the card that it is planned for; None without one.
        summary: name and value of what follows.
        cards: other cards, cards_title: what they are held against, and legend: what their columns mean.
    """

    title: str
    heading: str
    settings: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, float], ...]
    moment: str
    allocated_bytes: float
    reserved_bytes: float
    memory_bytes: float | None
    summary: tuple[tuple[str, str], ...]
    cards: tuple[CardFacts, ...]
    cards_title: str
    legend: tuple[str, ...]
