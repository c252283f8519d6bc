"""docs/claims.md: its tables are the planner's, and the planned numbers of its text are those of the tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from component.pipeline.claims_tables import (
    ALPACA_TOKENS,
    CARDS,
    CLAIMS_TABLES,
    LLAMA3_8B,
    MEASURED_H200_FLOPS,
    PLAIN,
    ceiling_tokens_per_second,
    planned,
)
from component.pipeline.guide_tables import fill_tables

ROOT = Path(__file__).resolve().parents[2]
#: Every number that users quote.
PUBLISHED = (
    "+44.35 %", "-30.72 %", "-42.58 %", "7.75 GB", "+47.32 %", "-39.13 %", "8.43 GB", "1.87 x", "-39.3 %", "1.88 x",
    "-65.9 %", "28.8 x", "32 x", "21.6 x", "85 h -> 3 h", "9 GB", "14 GB", "36 GB", "24 GB", "48 GB",
)  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/claims.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> dict[str, list[list[str]]]:
    """Name -> rows of cells, made anew."""
    return {
        name: [[cell.strip() for cell in line.strip("|").split("|")] for line in list(lines())[2:]]
        for name, lines in CLAIMS_TABLES.items()
    }


def test_the_tables_are_the_planners(page: str) -> None:
    assert fill_tables(page, CLAIMS_TABLES) == page, "run python script/write_docs.py"
    assert set(re.findall(r"<!-- table: (\w+) -->", page)) == set(CLAIMS_TABLES)


def test_every_claim_has_a_verdict(page: str) -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \| (.+) \|$", page, flags=re.MULTILINE)
    claims = {published: verdict for _, published, _, verdict in rows if published in PUBLISHED}
    assert set(claims) == set(PUBLISHED)
    assert all(re.search("reproduced|exceeded|impossible|not reached|as for", verdict) for verdict in claims.values())
    assert "72.3 against 72.1" in page
    marks = re.findall(r"\(measured: to come[^)]*\)", page)
    assert all(re.fullmatch(r"\(measured: to come, suite (firefly|chat|memory|quality|NAME)\)", mark) for mark in marks)


def test_planned_numbers_of_the_text(page: str, tables: dict[str, list[list[str]]]) -> None:
    """The page without its tables says of each claim what the tables say."""
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", page, flags=re.DOTALL)
    v100, qwen, llama2, mistral = (tables["firefly"][place] for place in (0, 2, 4, 5))
    said = [f"planned {row[column].replace('%', ' %')}" for row, columns in (
        (v100, (3, 4, 5)), (qwen, (3, 5)), (llama2, (5,)), (mistral, (5,))) for column in columns]  # fmt: skip
    said += [f"planned {row[6]} GB reserved" for row in (v100, qwen)]
    said += [f"planned {1 + float(row[3].strip('+%')) / 100:.2f} x at 2,048 x 4" for row in (llama2, mistral)]
    memory = {row[0]: row for row in tables["memory"]}
    for model in ("Llama-2-7b-chat-hf", "Llama-2-13b-chat-hf", "Llama-2-70b-chat-hf"):
        said.append(f"planned {memory[model][4]} GB")
    said.append(f"the weights alone are {memory['Llama-2-70b-chat-hf'][2]} GB")
    full = {row[0]: row for row in tables["full"]}
    said.append(f"weights and gradients in 16 bit are {full['Llama-2-7b-chat-hf'][1]} GiB")
    said.append(f"whose weights and gradients are {full['Llama-2-13b-chat-hf'][1]} GiB")
    t4 = tables["alpaca"][0]
    said.append(f"planned {t4[4]} padded to 2,048 -> {t4[2]} on a T4")
    said.append(f"multiplies the work by {2048 / ALPACA_TOKENS:.1f}")
    assert [sentence for sentence in said if sentence not in text] == []


def test_the_ceiling(page: str, tables: dict[str, list[list[str]]]) -> None:
    """More than it cannot be; what was measured lies below, and so does what the planner predicts."""
    ceiling = ceiling_tokens_per_second(MEASURED_H200_FLOPS)
    assert ceiling == pytest.approx(24_600, rel=1e-3)
    text = " ".join(page.split())
    assert "14.2 times, and the run beside it in 16 bit, packed and chosen by `auto`" in text
    assert f"17,739 tokens/s, {17_739 / 1_738:.1f} times" in text
    assert f"(`fp8_base`): 22,557 tokens/s, {22_557 / 1_738:.1f} times" in text
    assert f"measured {17_739 / 1_738:.1f} x over padded chat rows, {22_557 / 1_738:.1f} x with 8-bit floats" in text
    in_8_bit = ceiling_tokens_per_second(1_370e12)
    assert f"which makes {in_8_bit / 1_738:.1f} times" in text and 22_557 < in_8_bit < 28.8 * 1_738
    assert ceiling / 1_738 == pytest.approx(14.2, abs=0.06)
    most = max(float(row[5]) for row in tables["ceilings"])
    assert f"at most {most} times as fast" in page and f"at most {most} x on full rows" in page
    assert [row[0].partition(" ")[0] for row in tables["ceilings"][: len(CARDS)]] == ["T4", "V100", "A100", "H200"]
    plain = planned(LLAMA3_8B, "h200", **PLAIN, max_seq_length=2048, per_device_train_batch_size=4)
    assert plain.setting.loader == "vanilla" and plain.plan.workload.is_mixed
    assert plain.plan.time is not None and plain.plan.time.tokens_per_second == pytest.approx(6_308, rel=0.1)


def test_the_questions_that_tell_two_scores_apart(page: str) -> None:
    """Two proportions p on n answers each differ by a normal variable of variance 2 p (1 - p) / n."""
    p, difference = 0.722, 0.002
    num_questions = 2 * p * (1 - p) * (1.96 / difference) ** 2
    (said,) = re.findall(r"about ([\d,]+) questions each", page)
    assert int(said.replace(",", "")) == pytest.approx(num_questions, rel=0.01)
