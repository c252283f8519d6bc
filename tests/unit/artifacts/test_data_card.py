"""Prepared data on the terminal and as a page."""

from __future__ import annotations

import base64

import pytest

from component.artifacts.data_card import data_card
from component.artifacts.data_facts import (
    DataFacts,
    DroppedRows,
    ShownRow,
    ShownSample,
    SplitFacts,
    say_tokens,
    shorten_pieces,
)
from component.artifacts.data_page import data_page
from component.artifacts.histogram import Bin, LengthPlot
from component.artifacts.terminal import one_line, printable

BINS = (Bin(1, 10, 1), Bin(11, 20, 2))
PICTURE = b"\x89PNG"
WORST = ShownRow("a.jsonl:3", 20, 2)
FACTS = DataFacts(
    rendering=(("self-test", "equal\nstops"),),
    samples=(
        ShownSample(ShownRow("a.jsonl:1", 8, 2), (("", (("<b>2+2?</b>\n", False), ("4<|end|>", True))),)),
        ShownSample(
            ShownRow("a.jsonl:2", 9, 4), (("chosen", (("q", False), ("a", True))), ("rejected", (("⟦x⟧", True),)))
        ),
    ),
    splits=(
        SplitFacts(
            name="train",
            numbers=(("rows", "5 read, 3 used, 2 dropped"), ("tokens", "37 in all")),
            bins=BINS,
            plot=LengthPlot("train", BINS, ()),
            longest=(WORST,),
            least_supervised=(),
            others=(("repeated", ("a.jsonl:5: equals <a>",)),),
            dropped=(DroppedRows("empty answer", 2, ("a.jsonl:4: empty answer: <turn> 1",)),),
        ),
    ),
)


def test_plain_text() -> None:
    assert data_card(FACTS, color=False, width=20).splitlines() == [
        "samples: ⟦supervised⟧, and \\-escapes stand for what cannot be shown",
        "",
        "a.jsonl:1: 8 tokens, 2 supervised (25.0%)",
        "<b>2+2?</b>",
        "⟦4<|end|>⟧",
        "",
        "a.jsonl:2: 9 tokens, 4 supervised (44.4%)",
        "chosen:",
        "q⟦a⟧",
        "rejected:",
        "⟦\\u27e6x\\u27e7⟧",
        "",
        "rendering",
        "self-test  equal",
        "           stops",
        "",
        "train",
        "rows    5 read, 3 used, 2 dropped",
        "tokens  37 in all",
        "",
        "train: tokens in a sample, and how many samples have them",
        "   1-10  1  " + "#" * 20,
        "  11-20  2  " + "#" * 40,
        "",
        "train: longest",
        "  a.jsonl:3: 20 tokens, 2 supervised (10.0%)",
        "",
        "train: repeated",
        "  a.jsonl:5: equals <a>",
        "",
        "train: dropped",
        "  2 empty answer",
        "    a.jsonl:4: empty answer: <turn> 1",
        "    and 1 more",
    ]


def test_colours_mark_what_is_supervised_on_a_terminal() -> None:
    text = data_card(FACTS, color=True, width=80)
    assert "\x1b[32m4<|end|>\x1b[0m" in text
    assert "⟦4" not in text and "green is supervised" in text


def test_samples_are_shortened_unless_asked_for_whole() -> None:
    row, pieces = ShownRow("a:1", 900, 1), tuple((f"<{number}>", False) for number in range(20))
    facts = DataFacts((), (ShownSample(row, (("", (*pieces, ("x" * 500, True))),)),), ())
    short = data_card(facts, color=False, width=80)
    assert "<5>\n... 9 more pieces ...\n<15>" in short
    assert "⟦" + "x" * 200 + " ... 100 more characters ... " + "x" * 200 + "⟧" in short
    whole = data_card(facts, color=False, width=80, whole_samples=True)
    assert "".join(text for text, _ in pieces) + "⟦" + "x" * 500 + "⟧" in whole
    assert shorten_pieces(pieces[:12]) == pieces[:12]


def test_data_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2J\r\x07\u202e\tb\nä中") == "a\\x1b[2J\\r\\x07\\u202e\tb\nä中"
    assert one_line("a\nb") == "a\\nb"
    row = ShownRow("a\x1b[2J\n:1", 1, 0)
    text = data_card(DataFacts((), (ShownSample(row, (("", (("\x1b[31mred", True),)),)),), ()), color=False, width=80)
    assert text.splitlines()[2:] == ["a\\x1b[2J\\n:1: 1 tokens, 0 supervised (0.0%)", "⟦\\x1b[31mred⟧"]


def test_tokens_in_words() -> None:
    assert say_tokens(2000, 500) == "2,000 tokens, 500 supervised (25.0%)"
    assert say_tokens(0, 0) == "0 tokens, 0 supervised"


@pytest.fixture(scope="module")
def page() -> str:
    return data_page(FACTS, title="run <1>", picture=PICTURE, notices=("fp16: <off>",))


def test_the_page_holds_numbers_rows_and_picture(page: str) -> None:
    assert "<tr><th>rows</th><td>5 read, 3 used, 2 dropped</td></tr>" in page
    assert '<tr><td>a.jsonl:3</td><td class="count">20</td><td class="count">2</td></tr>' in page
    assert "<li>and 1 more</li>" in page
    assert "<h3>Repeated</h3>\n<ul>\n<li>a.jsonl:5: equals &lt;a&gt;</li>\n</ul>" in page
    assert f'src="data:image/png;base64,{base64.b64encode(PICTURE).decode()}"' in page
    assert "http" not in page


def test_the_page_escapes_what_comes_from_the_data(page: str) -> None:
    assert "&lt;b&gt;2+2?&lt;/b&gt;\n<mark>4&lt;|end|&gt;</mark>" in page
    assert "<li>a.jsonl:4: empty answer: &lt;turn&gt; 1</li>" in page
    assert "<title>run &lt;1&gt;: data</title>" in page and "<li>fp16: &lt;off&gt;</li>" in page
    assert "<b>" not in page and "<turn>" not in page
