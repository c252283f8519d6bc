"""Mixtures of sources: shares, order, limits, and what the report says of each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from component.config.errors import ConfigError, DataError
from component.config.load import load_config
from component.config.schema import DataSection
from component.data.encoders.build import build_row_encoder
from component.data.mixture import mix_rows
from component.data.prepare import PreparedData, prepare_data
from component.data.report import SourceReport


def mix(sizes: list[int], weights: list[float], seed: int) -> list[tuple[int, int]]:
    sources, rows = mix_rows(sizes, weights, seed)
    return list(zip(sources.tolist(), rows.tolist(), strict=True))


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    weights=st.lists(st.sampled_from([0.1, 0.25, 0.5, 1, 3, 70]), min_size=4, max_size=4),
    seed=st.integers(0, 3),
)
def test_shares_and_order(sizes: list[int], weights: list[float], seed: int) -> None:
    weights = weights[: len(sizes)]
    order = mix(sizes, weights, seed)
    assert order == mix(sizes, weights, seed)
    assert len(set(order)) == len(order)
    counts = Counter(source for source, _ in order)
    shares = [weight / sum(weights) for weight in weights]
    ideal = min(size / share for size, share in zip(sizes, shares, strict=True))
    for source, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        rows = [row for origin, row in order if origin == source]
        assert rows == sorted(rows) and rows[0] >= 0 and rows[-1] < size
        assert counts[source] == max(1, min(size, int(ideal * share + 1e-9)))
    assert any(counts[source] == size for source, size in enumerate(sizes))
    # At every place each source has had its share, give or take a row.
    seen: Counter[int] = Counter()
    for place, (source, _) in enumerate(order, start=1):
        seen[source] += 1
        for other in range(len(sizes)):
            assert abs(seen[other] - place * counts[other] / len(order)) <= len(sizes) / 2 + 0.5


def test_the_seed_chooses_the_rows() -> None:
    assert mix([2, 6], [0.5, 0.5], 1) != mix([2, 6], [0.5, 0.5], 2)
    assert [source for source, _ in mix([70, 30], [0.7, 0.3], 0)].count(0) == 70
    assert [source for source, _ in mix([4, 4], [1, 1], 0)] == [0, 1] * 4


@pytest.fixture()
def prepare(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PreparedData]:
    """Prepares texts of the files a.jsonl, with ten rows and a bad one, and b.jsonl, with six."""
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for name, count in (("a", 10), ("b", 6)):
        rows = [{"text": f"{name} {index}"} for index in range(count)]
        rows[2:2] = [{"text": " "}] if name == "a" else []
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def prepare(**options: Any) -> PreparedData:
        section = DataSection(**{"train_file": ["a.jsonl", "b.jsonl"], "max_bad_rows": 1.0, **options})
        return prepare_data(section, build_row_encoder(section, "text", tokenizer, None))

    return prepare


def places(data: PreparedData) -> list[str]:
    report = data.report
    assert report.rows_read == report.rows_used + report.rows_dropped
    assert len(data.train) + report.rows_left_out + report.rows_held_out == report.rows_used
    return [str(sample.source) for sample in data.train]


def test_without_weights_the_entries_follow_each_other(prepare: Callable[..., PreparedData]) -> None:
    data = prepare()
    lines = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert places(data) == [*(f"a.jsonl:{line}" for line in lines), *(f"b.jsonl:{line}" for line in range(1, 7))]
    assert data.report.sources == (SourceReport("a.jsonl", 11, 10, 1, 10), SourceReport("b.jsonl", 6, 6, 0, 6))


def test_a_mixture(prepare: Callable[..., PreparedData]) -> None:
    data = prepare(mixture_weights=[1, 3])
    assert [place[0] for place in places(data)] == list("babbbabb")
    assert data.report.sources == (SourceReport("a.jsonl", 11, 10, 1, 2, 1), SourceReport("b.jsonl", 6, 6, 0, 6, 3))
    assert data.report.lines()[0] == "train: kept 8  truncated 0  dropped 1 (1 empty text)  left out 8"
    assert "train: a.jsonl (weight 1): 2 rows taken, 8 left out, 1 dropped" in data.report.lines()
    assert "train: b.jsonl (weight 3): 6 rows taken" in data.report.lines()
    assert prepare(mixture_weights=[1, 3]) == data
    other = prepare(mixture_weights=[1, 3], seed=7)
    assert places(other) != places(data) and other.fingerprint != data.fingerprint
    split = prepare(mixture_weights=[1, 3], eval_split=2)
    assert (len(split.train), len(split.evaluation)) == (6, 2)
    places(split)


def test_max_samples(prepare: Callable[..., PreparedData]) -> None:
    data = prepare(max_samples=3)
    assert places(data) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:4", "b.jsonl:1", "b.jsonl:2", "b.jsonl:3"]
    assert (data.report.rows_read, data.report.rows_dropped) == (7, 1)
    assert data.report.notices == (
        "a.jsonl is read up to row 4, where max_samples is reached",
        "b.jsonl is read up to row 3, where max_samples is reached",
    )
    assert places(prepare(max_samples=[1, 2])) == ["a.jsonl:1", "b.jsonl:1", "b.jsonl:2"]
    assert places(prepare(max_samples=[1, 2], mixture_weights=[1, 1])) in (
        ["a.jsonl:1", "b.jsonl:1"],
        ["a.jsonl:1", "b.jsonl:2"],
    )
    assert len(prepare(max_samples=100).train) == 16


def test_an_entry_of_several_files_has_one_limit(prepare: Callable[..., PreparedData]) -> None:
    data = prepare(train_file=["*.jsonl"], max_samples=10)
    assert {place[0] for place in places(data)} == {"a"}
    assert data.report.notices == (
        "a.jsonl is read up to row 11, where max_samples is reached",
        "b.jsonl is not read: max_samples is reached before it",
    )
    assert data.report.sources == (SourceReport("*.jsonl", 11, 10, 1, 10),)


def test_an_entry_without_rows_has_no_weight(prepare: Callable[..., PreparedData]) -> None:
    Path("b.jsonl").write_text("")
    with pytest.raises(DataError) as caught:
        prepare(mixture_weights=[1, 1])
    expected = "mixture_weights: b.jsonl has a weight and no usable row; correct it, or drop both"
    assert str(caught.value) == expected


def test_an_entry_that_is_named_twice_has_one_weight(prepare: Callable[..., PreparedData]) -> None:
    with pytest.raises(DataError) as caught:
        prepare(train_file=["a.jsonl", "b.jsonl", "./a.jsonl"], mixture_weights=[1, 1, 2])
    expected = "mixture_weights: ./a.jsonl is named twice and read once; leave it out the second time, with its weight"
    assert str(caught.value) == expected
    repeated = prepare(train_file=["a.jsonl", "b.jsonl", "a.jsonl"])
    assert places(repeated) == places(prepare())
    assert repeated.report.notices == ("train_file: a.jsonl named more than once; read once",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixture_weights": [1]}, "mixture_weights has 1 numbers, train_file has 2 entries"),
        ({"max_samples": [1, 2, 3]}, "max_samples has 3 numbers, train_file has 2 entries"),
        ({"mixture_weights": [1, 0]}, "mixture_weights: got 0; use numbers above 0"),
        ({"max_samples": 0}, "max_samples: got 0; use a number above 0"),
    ],
)
def test_weights_and_limits_of_a_config(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"model_name_or_path": "m", "train_file": ["a", "b"], **values})
    assert message in str(caught.value)
