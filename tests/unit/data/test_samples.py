"""Samples in chunks: what comes out is what went in, however they are chosen, mapped or sent to another process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from component.data.chunks import Chunk, ChunkBuilder, to_bytes
from component.data.dataset import PreparedDataset
from component.data.rows import Prepared, PreparedPair, Source
from component.data.samples import Samples

SOURCES = st.builds(Source, st.sampled_from(["a.jsonl", "b/c.csv"]), st.integers(1, 10**10))
VALUES = st.sampled_from([None, True, -5, 1.5, "", "\u2600 x", ["a", [1]], {"b": {"c": None}}])


@st.composite
def samples(draw: st.DrawFn, source: st.SearchStrategy[Source] = SOURCES) -> Prepared:
    ids = tuple(draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8)))
    cuts = sorted(draw(st.sets(st.integers(0, len(ids)), max_size=6)))
    return Prepared(
        ids,
        tuple(zip(cuts[::2], cuts[1::2], strict=False)),
        draw(source),
        text=draw(st.none() | st.text(max_size=5)),
        label=draw(st.none() | st.booleans()),
        columns=draw(st.dictionaries(st.text(max_size=3), VALUES, max_size=2)),
    )


@st.composite
def pairs(draw: st.DrawFn) -> PreparedPair:
    source = st.just(draw(SOURCES))
    return PreparedPair(draw(samples(source)), draw(samples(source)))


@given(st.lists(samples(), max_size=6) | st.lists(pairs(), max_size=4))
def test_what_comes_out_is_what_went_in(items: list[Prepared | PreparedPair]) -> None:
    built = Samples.of(items)
    assert list(built) == items
    assert built == Samples.of(items) and (not items or built != Samples.of(items[1:]))
    assert built.lengths.tolist() == [item.length for item in items]
    parts = [(item.chosen, item.rejected) if isinstance(item, PreparedPair) else (item,) for item in items]
    assert built.num_tokens.tolist() == [sum(part.length for part in item) for item in parts]
    assert built.num_supervised_tokens.tolist() == [sum(part.num_supervised_tokens for part in item) for item in parts]
    assert built.rows.tolist() == list(range(len(items))) and built.num_rows == len(items)


def number(index: int, line: int) -> Prepared:
    return Prepared((index, index + 1), ((0, 2),), Source("f", line))


def write(folder: Path, chunks: list[list[int]]) -> tuple[Samples, list[list[Prepared]]]:
    """Samples in files; a number for each row, how many samples it makes."""
    paths, rows = [], []
    for number_of_chunk, sizes in enumerate(chunks):
        builder = ChunkBuilder()
        for size in sizes:
            row = [number(10 * len(rows) + piece, len(rows) + 1) for piece in range(size)]
            builder.add(row, row=len(rows), file=0, num_tokens_cut=len(rows) % 3)
            rows.append(row)
        paths.append(folder / f"{number_of_chunk}.arrow")
        paths[-1].write_bytes(to_bytes(builder.build()))
    return Samples([Chunk(path, ("f",)) for path in paths]), rows


def flat(rows: list[list[Prepared]]) -> list[Prepared]:
    return [sample for row in rows for sample in row]


@given(
    chunks=st.lists(st.lists(st.integers(1, 3), max_size=4), max_size=4),
    seed=st.integers(0, 100),
    cut=st.slices(6),
)
def test_rows_and_slices(tmp_path_factory: pytest.TempPathFactory, chunks: list, seed: int, cut: slice) -> None:
    built, rows = write(tmp_path_factory.mktemp("chunks"), chunks)
    assert list(built) == flat(rows)
    assert built.rows.tolist() == [index for index, row in enumerate(rows) for _ in row]
    assert built.of_rows("num_tokens_cut").tolist() == [index % 3 for index in range(len(rows))]
    order = np.random.default_rng(seed).permutation(len(rows))[: seed % 5]
    chosen = built.take_rows(order)
    assert list(chosen) == flat([rows[index] for index in order])
    assert chosen.of_rows("num_tokens_cut").tolist() == [index % 3 for index in order]
    assert chosen.lengths.tolist() == [sample.length for sample in chosen]
    joined = Samples.concatenate([chosen, built])
    assert list(joined) == list(chosen) + list(built)
    assert joined.rows.tolist() == [*chosen.rows, *(built.rows + len(order))]
    again = joined.take_rows(range(joined.num_rows))
    assert again == joined and again.rows.tolist() == joined.rows.tolist()
    assert list(built[cut]) == flat(rows)[cut]
    assert len(built[cut].of_rows("digest")) == built[cut].num_rows == len({s.source for s in built[cut]})


def test_an_index_out_of_range() -> None:
    built = Samples.of([number(1, 1), number(2, 2)])
    assert built[-1] == number(2, 2)
    with pytest.raises(IndexError):
        built[2]
    with pytest.raises(IndexError):
        Samples(())[0]


def test_a_digest_is_of_all_tokens_of_a_row() -> None:
    def digest(*ids: tuple[int, ...]) -> int:
        builder = ChunkBuilder()
        builder.add([Prepared(sample, (), Source("f", 1)) for sample in ids], row=0, file=0)
        return int(Samples([Chunk(builder.build(), ("f",))]).of_rows("digest")[0])

    assert digest((1, 2), (3,)) == digest((1, 2), (3,))
    assert len({digest((1, 2), (3,)), digest((1,), (2, 3)), digest((1, 2, 3)), digest((1, 2)), digest((513,))}) == 5


def test_files_are_mapped_and_keep_no_descriptor(tmp_path: Path) -> None:
    builder = ChunkBuilder()
    builder.add([Prepared(tuple(range(2**18)), (), Source("f", 1))], row=0, file=0)
    path = tmp_path / "big.arrow"
    path.write_bytes(to_bytes(builder.build()))
    del builder
    allocated = pyarrow.total_allocated_bytes()
    built = Samples([Chunk(path, ("f",))])
    assert built.lengths.tolist() == [2**18]
    assert pyarrow.total_allocated_bytes() - allocated < 2**16
    if sys.platform == "linux":
        assert str(path) in Path("/proc/self/maps").read_text()
        assert str(path) not in {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()}


READ = """
import pickle, sys
from component.data.samples import Samples
samples = pickle.load(open(sys.argv[1], "rb"))
print([sample.input_ids[0] for sample in samples], samples.rows.tolist(), samples.lengths.tolist())
"""


def test_another_process_maps_the_files_itself(tmp_path: Path, repository: Path) -> None:
    built, _ = write(tmp_path, [[1, 2], [3]])
    chosen = built.take_rows([2, 0])
    assert chosen.lengths.sum() == 8
    content = pickle.dumps(chosen)
    assert len(content) < 2000
    assert pickle.loads(content) == chosen
    (tmp_path / "pickled").write_bytes(content)
    command = [sys.executable, "-c", READ, str(tmp_path / "pickled")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[20, 21, 22, 0] [0, 0, 0, 1] [2, 2, 2, 2]"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(tmp_path: Path, start: str) -> None:
    built, rows = write(tmp_path, [[1, 2], [3], [1, 1]])
    loader = DataLoader(PreparedDataset(built), batch_size=None, num_workers=1, multiprocessing_context=start)
    assert [row["input_ids"] for row in loader] == [list(sample.input_ids) for sample in flat(rows)]
