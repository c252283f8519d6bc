"""report.html: the data of a run as one page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from component.artifacts.data_facts import DataFacts, shorten_pieces
from component.artifacts.terminal import printable, shorten

if TYPE_CHECKING:
    from jinja2 import Template

FILE_NAME = "report.html"
MAX_PIECE_LENGTH = 2000
TEMPLATE_FILE = Path(__file__).with_name("report.html.jinja")


def data_page(
    facts: DataFacts, *, title: str, picture: bytes, notices: Sequence[str] = (), hints: Sequence[str] = ()
) -> str:
    """The page.

    Args:
        title: the run's name.
        picture: PNG of the lengths; it becomes part of the page.
        notices: what was changed or ignored, one line each.
        hints: choices that work and are seldom meant, one line each.
    """
    image = base64.b64encode(picture).decode("ascii")
    return _template().render(
        facts=facts, title=title, image=image, notices=notices, hints=hints, limit=MAX_PIECE_LENGTH
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(printable=printable, shorten=shorten, shorten_pieces=shorten_pieces)
    return environment.from_string(TEMPLATE_FILE.read_text(encoding="utf-8"))
