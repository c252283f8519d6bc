"""The cache: what was prepared once is used again, and nothing else is, also if it was killed, damaged or shared."""

from __future__ import annotations

import ast
import copy
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from component.config.errors import UserError
from component.config.schema import DataSection
from component.data import cache_key, filling
from component.data.cache import Cache
from component.data.cache_entry import CacheEntry
from component.data.encoders.build import build_row_encoder
from component.data.encoders.interface import RowEncoder
from component.data.prepare import PreparedData, prepare_data
from component.data.render import Renderer
from component.data.report import MAX_LISTED_FAILURES
from component.data.rows import EncodedRow, Row, RowError
from component.data.templates import load_chat_template

OTHER_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


class CountingEncoder:
    """An encoder that counts the rows that it is given."""

    def __init__(self, encoder: RowEncoder) -> None:
        self.row_kind, self.keep_text, self.facts = encoder.row_kind, encoder.keep_text, encoder.facts
        self.num_rows = 0
        self._encoder = encoder

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        self.num_rows += len(rows)
        return self._encoder.encode_rows(rows)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def build(tokenizer: PreTrainedTokenizerBase, section: DataSection, kind: str, **options: Any) -> CountingEncoder:
    renderer = None if kind == "text" else Renderer(tokenizer, load_chat_template(section.template_name, tokenizer))
    return CountingEncoder(build_row_encoder(section, kind, tokenizer, renderer, **options))


Prepare = Callable[..., tuple[PreparedData, int]]


@pytest.fixture()
def prepare(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Prepares rows in small chunks with a cache of the test's own; gives the data and how many rows were encoded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(filling, "CHUNK_RECORDS", 20)
    monkeypatch.setattr(filling, "_BATCH_ROWS", 7)

    def prepare(kind: str = "messages", keep_text: bool = False, **values: Any) -> tuple[PreparedData, int]:
        base = {"train_file": ["train.jsonl"], "cache_dir": "cache", "max_bad_rows": 1.0}
        section = DataSection(**{**base, **values})
        encoder = build(tokenizer, section, kind, keep_text=keep_text)
        return prepare_data(section, encoder), encoder.num_rows

    return prepare


def talk(index: int, answer: str = "so") -> dict[str, Any]:
    answer = f"{answer} {index}" if answer.strip() else answer
    return {"conversation": [{"human": f"what about {index}?", "assistant": answer}]}


def write(rows: Sequence[Any], name: str = "train.jsonl") -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def mixed_rows(number: int) -> list[dict[str, Any]]:
    """Rows of which every ninth is bad, some are repeated, some have more columns and some are long."""
    rows = [talk(index % 50, "so " * (index % 7 + 1)) for index in range(number)]
    return [
        talk(index, " ") if index % 9 == 4 else {**row, "id": index} if index % 5 == 0 else row
        for index, row in enumerate(rows)
    ]


def num_good(start: int, end: int) -> int:
    """How many of `mixed_rows` are no bad ones."""
    return sum(index % 9 != 4 for index in range(start, end))


def entry_folder() -> Path:
    (folder,) = [path for path in Path("cache/data").iterdir() if path.name != "locks"]
    return folder


KINDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "messages": (mixed_rows(60), {"max_seq_length": 30, "truncation": "keep_start"}),
    "text": ([{"text": "words " * (index % 30 + 1)} for index in range(50)], {"max_seq_length": 12}),
    "preference": (
        [{"prompt": f"what of {i}?", "chosen": f"yes {i}", "rejected": "no"} for i in range(45)], {}
    ),
    "labelled": ([{"prompt": f"what of {i}?", "completion": f"yes {i}", "label": i % 3 == 0} for i in range(45)], {}),
    "prompt": ([{"prompt": f"what of {i}?", "solution": {"number": i, "more": ["\u2600"]}} for i in range(45)], {}),
}  # fmt: skip


@pytest.mark.parametrize("keep_text", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_the_encoder_and_are_used_again(
    kind: str, keep_text: bool, prepare: Prepare, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows, options = KINDS[kind]
    write(rows)
    fresh, num_encoded = prepare(kind, keep_text, **options)
    assert num_encoded == sum(isinstance(item, Row) for item in read(DataSection(train_file=["train.jsonl"]), kind))
    again, num_encoded = prepare(kind, keep_text, **options)
    assert num_encoded == 0
    assert again == fresh and again.report.to_dict() == fresh.report.to_dict()
    assert list(again.failures()) == list(fresh.failures())
    section = DataSection(train_file=["train.jsonl"], **options)
    encoder = build(tokenizer, section, kind, keep_text=keep_text)
    parsed = [item for item in read(section, kind) if isinstance(item, Row)]
    expected = [item for item in encoder.encode_rows(parsed) if isinstance(item, EncodedRow)]
    assert list(fresh.train) == [sample for row in expected for sample in row.samples]
    assert fresh.train.rows.tolist() == [number for number, row in enumerate(expected) for _ in row.samples]
    assert fresh.report.num_truncated_tokens == sum(row.num_tokens_cut for row in expected)
    assert fresh.report.rows_without_stop == sum(row.is_without_stop for row in expected)


def read(section: DataSection, kind: str) -> list[Any]:
    from component.data.reading import read_rows
    from component.data.sources import find_files

    (file,) = find_files(section.train_file, key="train_file", row_kind=kind).files
    return list(read_rows(file, section, kind).rows)


def test_an_edited_row_is_seen_and_a_renamed_file_is_not_new(prepare: Prepare) -> None:
    rows = mixed_rows(60)
    write(rows)
    before, _ = prepare()
    Path("train.jsonl").rename("renamed.jsonl")
    renamed, num_encoded = prepare(train_file=["renamed.jsonl"])
    assert num_encoded == 0
    assert [str(sample.source) for sample in renamed.train][:2] == ["renamed.jsonl:1", "renamed.jsonl:2"]
    assert {failure.source.file for failure in renamed.failures()} == {"renamed.jsonl"}
    assert [sample.input_ids for sample in renamed.train] == [sample.input_ids for sample in before.train]
    rows[41] = talk(1, "edited")
    write(rows)
    edited, num_encoded = prepare()
    assert num_encoded == num_good(0, 60)
    assert [mine == theirs for mine, theirs in zip(edited.train, before.train, strict=True)].count(False) == 1


def test_what_decides_the_rows_makes_another_entry(prepare: Prepare, tokenizer: PreTrainedTokenizerBase) -> None:
    write(mixed_rows(30))
    Path("other.jinja").write_text(OTHER_TEMPLATE)
    assert prepare()[1] > 0
    same = [
        {"seed": 7},
        {"eval_split": 5},
        {"max_bad_rows": 0.5},
        {"cache_max_gib": 1.0},
        {"tokenize_num_workers": None},
    ]
    for values in same:
        assert prepare(**values)[1] == 0, values
    assert prepare(eval_file=["train.jsonl"])[1] == 0  # the same rows, under another key of the config
    other = [
        {"template_name": "other.jinja"},
        {"max_seq_length": 20},
        {"max_seq_length": 20, "truncation": "keep_end"},
        {"max_samples": 10},
        {"data_format": "firefly"},
        {"keep_text": True},
    ]
    for values in other:
        assert prepare(**values)[1] > 0, values
    assert len(Cache("cache").items()) == 1 + len(other)
    other_tokenizer = copy.deepcopy(tokenizer)
    other_tokenizer.add_tokens(["<extra>"])
    section = DataSection(train_file=["train.jsonl"], cache_dir="cache", max_bad_rows=1.0)
    encoder = build(other_tokenizer, section, "messages")
    prepare_data(section, encoder)
    assert encoder.num_rows > 0
    Path("train.jsonl").rename("train.json")
    assert prepare(train_file=["train.json"])[1] > 0  # read in another way


def test_mixtures_and_splits_stand_on_the_same_rows(prepare: Prepare) -> None:
    write([talk(index) for index in range(40)])
    write([talk(index + 30) for index in range(40)], "more.jsonl")
    files = ["train.jsonl", "more.jsonl"]
    whole, num_encoded = prepare(train_file=files)
    assert num_encoded == 80 and whole.report.rows_repeated == 10
    lines = "train: 10 rows equal to an earlier one, token for token"
    assert lines in whole.report.lines()
    mixed, num_encoded = prepare(train_file=files, mixture_weights=[1, 3], eval_split=0.25)
    assert num_encoded == 0
    assert {sample.source.file for sample in mixed.evaluation} == set(files)
    assert mixed.report.rows_used == 80 and len(mixed.train) + len(mixed.evaluation) + mixed.report.rows_left_out == 80
    assert (mixed.eval_report.files, mixed.eval_report.sources) == ((), ())
    rows = [str(sample.source) for sample in (*mixed.train, *mixed.evaluation)]
    assert len(set(rows)) == len(rows)
    assert mixed.eval_report.rows_also_in_train == sum(
        sample.input_ids in {other.input_ids for other in mixed.train} for sample in mixed.evaluation
    )


def test_a_limit_reads_no_row_that_it_does_not_need(prepare: Prepare) -> None:
    write([*mixed_rows(60)])
    data, num_encoded = prepare(max_samples=31)
    assert num_encoded == 31 == data.train.num_rows
    last = data.train[-1].source.line
    assert data.report.rows_read == last and data.report.rows_used + data.report.rows_dropped == last
    assert prepare(max_samples=31) == (data, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


#: What is done to an entry of three chunks, and how many of them can still be used.
DAMAGES: dict[str, tuple[Callable[[Path], Any], int]] = {
    "a bit of a table": (lambda folder: flip(folder / "chunk-00001.arrow"), 1),
    "a bit of counts": (lambda folder: flip(folder / "chunk-00001.json"), 1),
    "a bit of the first table": (lambda folder: flip(folder / "chunk-00000.arrow"), 0),
    "a table that was cut": (lambda folder: os.truncate(folder / "chunk-00002.arrow", 1000), 2),
    "a table that is gone": (lambda folder: (folder / "chunk-00001.arrow").unlink(), 1),
    "counts that are gone": (lambda folder: (folder / "chunk-00001.json").unlink(), 1),
    "a bit of the last file": (lambda folder: flip(folder / "entry.json"), 3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_prepared_again(damage: str, prepare: Prepare) -> None:
    write(mixed_rows(60))
    before, _ = prepare()
    samples = list(before.train)  # now: the files are mapped, so that damage to them shows at once
    content = {path.name: path.read_bytes() for path in entry_folder().iterdir() if path.name.startswith("chunk")}
    harm, num_chunks = DAMAGES[damage]
    harm(entry_folder())
    stored = CacheEntry(entry_folder()).load()
    assert (len(stored.paths), stored.is_complete, stored.is_damaged) == (num_chunks, False, True)
    num_kept = stored.tally.rows_read
    after, num_encoded = prepare()
    assert num_encoded == num_good(num_kept, 60)
    assert list(after.train) == samples
    notice = (
        f"the cache of train.jsonl was damaged: {num_kept} of its rows are kept, those after them are prepared again"
    )
    assert after.report.notices == (notice, *before.report.notices)
    assert {path.name: path.read_bytes() for path in entry_folder().iterdir() if path.name in content} == content
    again, num_encoded = prepare()
    assert num_encoded == 0 and list(again.train) == samples and again.report == before.report


def test_what_a_file_system_puts_into_an_entry_is_left_alone(prepare: Prepare) -> None:
    write(mixed_rows(60))
    before, _ = prepare()
    content = {path.name: path.read_bytes() for path in entry_folder().iterdir() if path.name.startswith("chunk")}
    for folder in (".snapshot", "lost+found"):
        (entry_folder() / folder).mkdir()
    (entry_folder() / ".nfs0001").write_text("")
    (entry_folder() / "chunk-00001.json").unlink()
    (entry_folder() / "chunk-00003.arrow.part").write_text("")
    after, num_encoded = prepare()
    assert num_encoded > 0 and list(after.train) == list(before.train)
    others = {".snapshot", "lost+found", ".nfs0001", "entry.json", "CACHEDIR.TAG"}
    assert {path.name for path in entry_folder().iterdir()} == {*content, *others}
    assert all((entry_folder() / name).read_bytes() == data for name, data in content.items())
    (item,) = Cache("cache").items()
    del before, after
    assert Cache("cache").remove(item.key) and Cache("cache").items() == []


def test_complete_rows_are_mapped_while_another_process_checks_them(prepare: Prepare) -> None:
    write(mixed_rows(30))
    before, _ = prepare()
    (item,) = Cache("cache").items()
    with Cache("cache").lock(item.key, "the rows"):
        assert prepare() == (before, 0)


@pytest.mark.parametrize("cache_dir", ["fold/c", "fold"])
@pytest.mark.parametrize("entry", ["fold/data", "fold", "fold/**", "fold/*"])
def test_a_cache_below_the_data_is_no_data(cache_dir: str, entry: str, prepare: Prepare) -> None:
    Path("fold/data/deep").mkdir(parents=True)
    write(mixed_rows(30), "fold/data/deep/x.jsonl")
    before, _ = prepare(train_file=[entry], cache_dir=cache_dir)
    after, num_encoded = prepare(train_file=[entry], cache_dir=cache_dir)
    assert num_encoded == 0 and after.fingerprint == before.fingerprint and list(after.train) == list(before.train)
    more = [notice for notice in after.report.notices if notice not in before.report.notices]
    is_below = cache_dir == "fold" or entry != "fold/data"
    assert [notice.startswith("train_file: left out fold/") for notice in more] == [True] * is_below
    assert all(notice.endswith(": prepared rows of a cache") and ".lock" not in notice for notice in more)


def test_all_dropped_rows_are_named(prepare: Prepare) -> None:
    number = MAX_LISTED_FAILURES + 300
    write([*[talk(index, "") for index in range(number)], talk(1)])
    data, _ = prepare()
    assert [failure.source.line for failure in data.failures()] == list(range(1, number + 1))
    assert (data.report.rows_dropped, len(data.report.failures)) == (number, MAX_LISTED_FAILURES)
    assert data.report.dropped_by_reason == {"empty answer": number}
    again, num_encoded = prepare()
    assert num_encoded == 0 and list(again.failures()) == list(data.failures()) and again.report == data.report


def test_the_least_recently_used_leave_first_and_those_in_use_stay(prepare: Prepare) -> None:
    def files() -> set[tuple[str, ...]]:
        return {item.summary.files for item in Cache("cache").items()}

    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        write([talk(index, name) for index in range(30)], name)
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        prepare(train_file=[name])
        time.sleep(0.02)
    size = max(item.num_bytes for item in Cache("cache").items())
    kept, _ = prepare(train_file=["c.jsonl"], cache_max_gib=2.5 * size / 2**30)
    assert files() == {("a.jsonl",), ("c.jsonl",)}
    assert Cache("cache").shrink(0) and files() == {("c.jsonl",)}
    (item,) = Cache("cache").items()
    assert item.is_held and not Cache("cache").remove(item.key)
    assert len(kept.train[:3]) == 3
    samples = kept.train.take_rows([5])
    del kept
    assert Cache("cache").items()[0].is_held  # by what was taken of it
    del samples
    assert Cache("cache").remove(item.key) and Cache("cache").items() == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_that_cannot_be_used(place: str, prepare: Prepare) -> None:
    write([talk(1)])
    Path("file").write_text("")
    with pytest.raises(
        UserError, match=r"^cache_dir: .*/file.* cannot be used \(Not a directory|File exists.*another folder$"
    ):
        prepare(cache_dir=place)


def test_a_full_disk_is_named_and_what_was_written_before_is_kept(prepare: Prepare) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    write([*mixed_rows(30), *({"conversation": [{"human": "q", "assistant": "long " * 3000}]},) * 30])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"^cache_dir: .* cannot be used \(File too large\); mend that, or set cache_dir"
        ):
            prepare(max_seq_length=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    stored = CacheEntry(entry_folder()).load()
    assert len(stored.paths) == 1 and not stored.is_complete and not stored.is_damaged
    data, num_encoded = prepare(max_seq_length=100_000)
    assert data.report.rows_read == 60 and num_encoded == num_good(stored.tally.rows_read, 30) + 30


def test_an_incomplete_entry_is_listed_and_cleared(prepare: Prepare, repository: Path) -> None:
    write(mixed_rows(30))
    data, _ = prepare()
    (key,) = [item.key for item in Cache("cache").items()]
    shutil.copytree(entry_folder(), Path("cache/data") / ("0" * 64))
    (Path("cache/data") / ("0" * 64) / "entry.json").unlink()

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        full = [sys.executable, str(repository / "script/cache.py"), *arguments, "--cache_dir", "cache"]
        return subprocess.run(full, capture_output=True, text=True, check=False)

    shown = command("list").stdout
    assert key[:12] in shown and "train.jsonl" in shown and "in use" in shown
    assert "000000000000" in shown and "incomplete" in shown
    assert f"{data.train.num_rows}" in shown and f"{data.report.num_tokens:,}" in shown
    refused = command("clear", "xyz")
    assert refused.returncode == 2 and refused.stderr.startswith("xyz: no entry has a key that begins so")
    cleared = command("clear", "--all")
    assert f"{key[:12]}: in use by a process, kept" in cleared.stdout and "000000000000: removed" in cleared.stdout
    del data
    assert f"{key[:12]}: removed" in command("clear", key[:8]).stdout
    assert command("clear", "--all").stdout.endswith("no quantized weights\n")


CHILD = """
import json, sys
from transformers import AutoTokenizer
from component.config.schema import DataSection
from component.data.prepare import prepare_data
from component.runtime.logging import configure_logging
sys.path.insert(0, sys.argv[2])
from test_cache import build
configure_logging(None, 0)
section = DataSection(**json.loads(sys.argv[1]))
encoder = build(AutoTokenizer.from_pretrained(sys.argv[3]), section, "messages")
print("ready", flush=True)
input()
data = prepare_data(section, encoder)
print(encoder.num_rows, data.train.num_rows, int(data.train.lengths.sum()), data.report.rows_dropped, flush=True)
"""


def start(section: dict[str, Any], tiny_model: Path, repository: Path) -> subprocess.Popen[str]:
    """A process that prepares once a line is written to it."""
    command = [sys.executable, "-c", CHILD, json.dumps(section), str(Path(__file__).parent), str(tiny_model)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(command, text=True, env=environment, **pipes)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def test_twenty_thousand_rows_killed_and_resumed(
    tmp_path: Path,
    tiny_model: Path,
    repository: Path,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = mixed_rows(20_000)
    write(rows)
    values = {"train_file": ["train.jsonl"], "cache_dir": "cache", "max_bad_rows": 1.0, "max_seq_length": 512}
    child = start(values, tiny_model, repository)
    child.stdin.write("\n")
    child.stdin.flush()
    while not list(Path("cache").glob("data/*/chunk-00000.json")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    stored = CacheEntry(entry_folder()).load()
    assert stored.paths and not stored.is_complete and not stored.is_damaged
    section = DataSection(**values)
    encoder = build(tokenizer, section, "messages")
    resumed = prepare_data(section, encoder)
    assert encoder.num_rows == num_good(stored.tally.rows_read, 20_000) < num_good(0, 20_000)
    whole = DataSection(**{**values, "cache_dir": "other"})
    fresh = prepare_data(whole, build(tokenizer, whole, "messages"))
    assert (resumed.report.rows_read, resumed.report.rows_used) == (20_000, num_good(0, 20_000))
    assert resumed == fresh and list(resumed.failures()) == list(fresh.failures())


def test_two_processes_at_once_share_the_work(
    tmp_path: Path, tiny_model: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(mixed_rows(6000))
    values = {"train_file": ["train.jsonl"], "cache_dir": "cache", "max_bad_rows": 1.0, "max_seq_length": 512}
    children = [start(values, tiny_model, repository) for _ in range(2)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    done = [child.communicate() for child in children]
    counts = [output.split() for output, _ in done]
    assert sorted(int(count[0]) for count in counts) == [0, num_good(0, 6000)]
    assert counts[0][1:] == counts[1][1:] and counts[0][1] == str(num_good(0, 6000))
    waits = [errors.count("waiting for another process that prepares train.jsonl") for _, errors in done]
    assert sorted(waits) == [0, 1]


def test_the_code_hash_covers_all_that_makes_tokens() -> None:
    """What encoders and readers import, however indirectly, is not among the modules that are left out."""
    folder = Path(cache_key.__file__).parent
    waiting = [
        *folder.glob("encoders/*.py"),
        *folder.glob("formats/*.py"),
        folder / "sources.py",
        folder / "reading.py",
    ]
    waiting += [folder / "filling.py", folder / "chunks.py"]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("component.data."):
                waiting.append(folder.joinpath(*node.module.split(".")[2:]).with_suffix(".py"))
    left_out = {folder / f"{name}.py" for name in cache_key._WITHOUT_TOKENS}
    assert all(path.is_file() for path in seen | left_out)
    assert {path.name for path in seen & left_out} <= {"cache_entry.py", "progress.py", "report.py", "samples.py"}


def test_a_changed_format_of_the_users_own_is_seen(tmp_path: Path, repository: Path) -> None:
    plugin = tmp_path / "quiz.py"
    text = (
        "from component.data.rows import Message, Row\nfrom component.registry import FORMATS\n"
        "@FORMATS.register('quiz')\nclass Quiz:\n    row_kind = 'messages'\n"
        "    @staticmethod\n    def looks_like(record):\n        return 'quiz' in record\n"
        "    @staticmethod\n    def parse(record, source):\n        return Row(source, text='ANSWER')\n"
    )
    program = "import quiz; from component.data.cache_key import hash_code; print(hash_code())"
    hashes = []
    for answer in ("a", "a", "b"):
        plugin.write_text(text.replace("ANSWER", answer))
        command = [sys.executable, "-B", "-c", program]
        environment = {**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{tmp_path}"}
        hashes.append(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert hashes[0] == hashes[1] != hashes[2] and hashes[0] != cache_key.hash_code()
