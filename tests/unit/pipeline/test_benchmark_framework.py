"""What the measuring suites share: results go on where they stopped, medians, tables, children."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import UserError
from component.pipeline.benchmark import files, runner, table
from component.pipeline.benchmark.baseline import Meter, read_chats
from component.pipeline.benchmark.case import TRAIN, Case, Rows
from component.pipeline.benchmark.child import Ended, run_child
from component.pipeline.benchmark.files import Files, sizes_of
from component.pipeline.benchmark.measured import attention_of, median_speed_after, read_run, speed_after, status_of
from component.pipeline.benchmark.report import describe_surroundings
from component.pipeline.benchmark.results import DONE, FAILED, OUT_OF_MEMORY, Results, summarize
from component.pipeline.benchmark.runner import Effort, run_cases, utilization
from component.pipeline.benchmark.sources import check_tokenizer, check_tokenizer_name
from component.pipeline.benchmark.table import Line, render_table

ROWS = Rows("chat", 8, 128, 32)
FACTS = {
    "gpus": [{"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "1"}],
    "cpu": "a CPU",
    "python": "3.12.1",
    "packages": {"torch": "2.11.0", "trl": None},
    "git": {"commit": "0123456789abcdef", "dirty": False},
}


def case(name: str, **settings: Any) -> Case:
    return Case(name, TRAIN, {"train_mode": "qlora", **settings}, "tiny", ROWS, 1)


def done(speed: float, **others: Any) -> dict[str, Any]:
    return {
        "status": DONE,
        "date": "2026-11-28T10:00:00+00:00",
        "seconds": 1.0,
        "real_tokens_per_second": speed,
        **others,
    }


def run_with(
    monkeypatch: pytest.MonkeyPatch, path: Path, cases: list[Case], effort: Effort, answers: dict
) -> list[str]:
    """Run cases whose results are given; returns the names of those that were run."""
    ran: list[str] = []

    def run_case(case: Case, _files: Files, _facts: dict[str, Any]) -> dict[str, Any]:
        ran.append(case.name)
        return answers[case.name]

    monkeypatch.setattr(runner, "run_case", run_case)
    monkeypatch.setattr(runner, "environment_facts", lambda _repository: FACTS)
    run_cases(cases, Results(path), Files(path.parent / "files"), effort, lambda _text: None)
    return ran


def test_a_command_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what lacks runs is run; repeats go round by round; what failed or had no memory is not repeated."""
    good, broken, large = case("good"), case("broken", lora_rank=8), case("large", lora_rank=16)
    failed = {"status": FAILED, "date": "2026-11-28T10:00:00+00:00", "exit_code": 2, "reason": "no such key"}
    answers = {"good": done(10.0), "broken": failed, "large": {**failed, "status": OUT_OF_MEMORY}}
    path, cases = tmp_path / "x.json", [good, broken, large]
    assert run_with(monkeypatch, path, cases, Effort(deadline=0.0), answers) == []
    assert run_with(monkeypatch, path, cases[:1], Effort(), answers) == ["good"]
    assert run_with(monkeypatch, path, cases, Effort(), answers) == ["broken", "large"]
    assert run_with(monkeypatch, path, cases, Effort(repeats=3), answers) == ["good", "good"]
    assert run_with(monkeypatch, path, cases, Effort(repeats=3, retry=True), answers) == ["broken"]
    # Another name is the same case; another setting is not.
    assert run_with(monkeypatch, path, [replace(good, name="renamed")], Effort(), answers) == []
    answers["other"] = done(1.0)
    assert run_with(monkeypatch, path, [case("other", lora_rank=4)], Effort(), answers) == ["other"]
    content = json.loads(path.read_text())
    assert [len(entry["runs"]) for entry in content["cases"]] == [3, 1, 1, 1]
    assert len(content["surroundings"]) == 1
    assert content["cases"][1]["settings"] == {"train_mode": "qlora", "lora_rank": 8}


def test_processes_add_to_one_file(tmp_path: Path) -> None:
    """Each has read the file before the others have added; every run of all is there, and what is noted beside them."""
    path = tmp_path / "x.json"
    first, second = Results(path), Results(path)
    first.add(case("one"), done(1.0), FACTS)
    second.add(case("two", lora_rank=8), done(2.0), {**FACTS, "cpu": "another"})
    first.note("seen", 1)
    assert [len(second.runs(case("one"))), len(Results(path).content["surroundings"])] == [1, 2]

    def add_many(results: Results) -> None:
        for speed in range(8):
            results.add(case("one"), done(speed), FACTS)

    with ThreadPoolExecutor() as pool:
        list(pool.map(add_many, [Results(path) for _ in range(4)]))
    speeds = [run["real_tokens_per_second"] for run in Results(path).runs(case("one"))]
    assert sorted(speeds) == sorted([1.0, *list(range(8)) * 4]) and Results(path).content["seen"] == 1


def refused(path: Path, content: Any) -> str:
    """The message over a file of such content."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as error:
        Results(path)
    assert str(error.value).startswith(f"{path}: ") and "move" in str(error.value)
    return str(error.value)


def test_results_of_something_else_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert "holds no JSON object" in refused(path, "[1]")
    assert "cannot be read" in refused(path, "{")
    assert "not the results of a suite" in refused(path, {"schema_version": 0, "cases": []})
    assert "not the results of a suite" in refused(path, {"schema_version": 1, "cases": []})
    Results(tmp_path / "chat.json").add(case("one"), done(1.0), FACTS)
    assert "results of suite chat, not of x" in refused(path, (tmp_path / "chat.json").read_text())
    assert Results(tmp_path / "chat.json").runs(case("one"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("surroundings",), "surroundings is missing"),
        (("cases", 0, "runs"), "cases[0].runs is missing"),
        (("cases", 0, "runs", 0, "status"), "cases[0].runs[0].status is missing"),
        (("cases", 0, "runs", 0, "date"), "cases[0].runs[0].date is missing"),
        (("surroundings", "@", "git"), "surroundings.@.git is missing"),
        (("surroundings", "@", "gpus", 0, "memory"), "surroundings.@.gpus[0].memory is missing"),
    ],
)
def test_damaged_results_say_where(tmp_path: Path, place: tuple[Any, ...], message: str) -> None:
    results = Results(tmp_path / "x.json")
    results.add(case("one"), done(1.0), FACTS)
    (name,) = results.content["surroundings"]
    content: Any = deepcopy(results.content)
    part = content
    for key in place[:-1]:
        part = part[name if key == "@" else key]
    del part[place[-1]]
    assert message.replace("@", name) in refused(tmp_path / "x.json", content)


def test_results_of_other_types_say_where(tmp_path: Path) -> None:
    path, results = tmp_path / "x.json", Results(tmp_path / "x.json")
    results.add(case("one"), done(1.0), FACTS)
    for field, value, message in (
        ("date", 5, "cases[0].runs[0].date is of the wrong type, int"),
        ("status", "well", "cases[0].runs[0].status is 'well', none of done"),
        ("surroundings", "?", "names none of the file's surroundings"),
    ):
        content = deepcopy(results.content)
        content["cases"][0]["runs"][0][field] = value
        assert message in refused(path, content)
    path.write_text(json.dumps(results.content))
    with pytest.raises(UserError, match=r"cases\[0\]\.runs\[0\]\.cells is missing"):
        Results(path, fields_of=lambda _entry: {"cells": dict})


def test_medians_are_over_runs_that_ended_well() -> None:
    runs = [done(1.0, attention="a"), {"status": FAILED, "reason": "x"}, done(5.0), done(3.0, attention="b", peak=None)]
    summary = summarize(runs)
    assert summary is not None
    assert (summary["real_tokens_per_second"], summary["attention"], summary["peak"]) == (3.0, "b", None)
    assert (summary["num_runs"], summary["num_failed"]) == (3, 1)
    only_failed = summarize([{"status": OUT_OF_MEMORY, "reason": "x"}])
    assert only_failed == {"status": OUT_OF_MEMORY, "reason": "x", "num_runs": 0}
    assert summarize([]) is None


def test_a_table_has_a_row_for_what_did_not_run() -> None:
    lines = [
        Line(case("good"), summarize([done(1234.5, peak_allocated_bytes=2**30, mfu=0.5)])),
        Line(case("small"), {"status": OUT_OF_MEMORY}),
        Line(case("broken"), {"status": FAILED, "exit_code": 2, "reason": "a | b"}),
        Line(case("later"), None),
    ]
    columns = (table.REAL_TOKENS, table.ALLOCATED, table.MFU, table.text("attention", "attention"))
    assert render_table(columns, lines).splitlines() == [
        "| run | real tokens/s | peak allocated GiB | MFU | attention |",
        "|---|---|---|---|---|",
        "| good | 1,234 | 1.00 | 50.0% | - |",
        "| small | out of memory | | | |",
        "| broken | failed, exit 2: a / b | | | |",
        "| later | not run | | | |",
    ]


def test_what_it_was_measured_on(tmp_path: Path) -> None:
    results, one = Results(tmp_path / "x.json"), case("one")
    results.add(one, done(1.0), FACTS)
    results.add(one, {**done(1.0), "date": "2026-11-30T10:00:00+00:00"}, {**FACTS, "gpus": []})
    assert describe_surroundings([one], results).splitlines() == [
        "Measured 2026-11-28 on NVIDIA H200 (143771 MiB, driver 1); Python 3.12.1, torch 2.11.0; commit 0123456789ab.",
        "Measured 2026-11-30 on a CPU; Python 3.12.1, torch 2.11.0; commit 0123456789ab.",
    ]


def test_speed_is_that_after_the_warm_up() -> None:
    """Stretches end at steps 1, 4, 8: with a warm-up of 4 only the last one counts, 800 tokens in 4 seconds."""
    records = [
        {"step": 1, "total_tokens": 100, "tokens_per_second": 1.0},
        {"step": 4, "total_tokens": 400, "tokens_per_second": 10.0},
        {"step": 8, "total_tokens": 1200, "tokens_per_second": 200.0},
    ]
    assert speed_after(records, 4) == pytest.approx(200)
    assert speed_after(records, 1) == pytest.approx(1100 / (30 + 4))
    assert speed_after(records, 8) is None
    assert median_speed_after(records, 1) == pytest.approx(105)
    assert median_speed_after(records, 8) is None


def test_mfu_counts_four_flops_of_a_frozen_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """STACK's ceiling: 8.03 billion parameters, here at the datasheet's 989.5 TFLOP/s."""
    large = replace(case("x"), model="llama3 8b")
    assert utilization(large, 24_600, FACTS) == pytest.approx(4 * 8.03e9 * 24_600 / 989.5e12, rel=1e-3)
    full = replace(large, settings={"train_mode": "full"})
    assert utilization(full, 1000, FACTS) == pytest.approx(1.5 * utilization(large, 1000, FACTS))
    assert utilization(large, 1000, {"gpus": []}) is None


def test_how_a_child_ends(tmp_path: Path) -> None:
    program = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text('1')\ntime.sleep(0.3)\n"
    program += "print(os.environ['MARK'])\nsys.exit(4)"
    mark = tmp_path / "first"
    command = [sys.executable, "-c", program, str(mark)]
    ended = run_child(command, log=tmp_path / "log", first_step=mark, environment={"MARK": "here"})
    assert (ended.code, ended.lines) == (4, ("here",))
    assert ended.first_step_seconds is not None and ended.first_step_seconds <= ended.seconds
    assert status_of(ended) == OUT_OF_MEMORY
    assert status_of(Ended(1, 1.0, None, ("torch.OutOfMemoryError: CUDA out of memory.", "end"))) == OUT_OF_MEMORY
    run = read_run(case("x"), tmp_path, Ended(2, 1.0, None, ("model_name_or_path: nothing there", "")))
    assert (run["status"], run["reason"]) == (FAILED, "model_name_or_path: nothing there")


def test_what_rows_ran_on() -> None:
    assert attention_of({"packing": {"attention": None}, "got": {"attn_implementation": "sdpa"}}) == "sdpa"
    assert attention_of({"packing": {"attention": "varlen"}, "got": {"attn_implementation": "sdpa"}}) == "varlen"
    assert attention_of({}) is None


def test_files_of_a_case(tiny_model: Path, tmp_path: Path) -> None:
    """A real checkpoint is taken as it is; the same rows are written once; train.py gets no results of before."""
    made = Files(tmp_path)
    one = replace(case("one", max_steps=2), model=str(tiny_model), evaluation=Rows("chat", 2, 128, 32))
    (tmp_path / "run").mkdir()
    command, output = made.prepare(one)
    assert command[1:] == [TRAIN, "--train_args_file", str(tmp_path / "settings.json"), "--resume", "never"]
    assert not output.exists()
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["model_name_or_path"] == str(tiny_model) and settings["max_steps"] == 2
    assert Path(settings["train_file"]).read_text() != Path(settings["eval_file"]).read_text()
    before = Path(settings["train_file"]).stat().st_mtime_ns
    made.prepare(one)
    assert Path(settings["train_file"]).stat().st_mtime_ns == before
    with pytest.raises(UserError, match="--model: nothing is neither a folder nor a known shape"):
        sizes_of("nothing")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no config.json or adapter_config.json; name a model"),
        ({"config.json": "{"}, "cannot be read"),
        ({"config.json": '{"model_type": 3}'}, "model_type is 3"),
        ({"config.json": '{"model_type": "llama"}'}, "has no weights"),
        ({"config.json": '{"model_type": "llama"}', "model.safetensors": ""}, "has no tokenizer.json"),
        ({"config.json": '{"model_type": "llama"}', "model.bin": "", "tokenizer.json": "{"}, "mend the file"),
    ],
)
def test_a_folder_that_is_no_checkpoint(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        Files(tmp_path / "files").checkpoint(str(tmp_path))
    assert str(error.value).startswith("--model: ") and message in str(error.value)


def test_what_is_no_tokenizer(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/tokenizer.json").write_text("{")
    for name, message in (
        ("none", "does not exist; name a folder with tokenizer.json"),
        ("file", "is a file"),
        (".", "has no tokenizer.json; name a folder that has one"),
        ("damaged", "cannot be read"),
    ):
        with pytest.raises(UserError, match=f"--tokenizer: .*{message}"):
            check_tokenizer(tmp_path / name)
    check_tokenizer(tiny_model)
    with pytest.raises(UserError, match="--tokenizer: .* is no folder"):
        check_tokenizer_name(str(tmp_path / "none"))


def test_a_checkpoint_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the user can mend ends the suite; what else goes wrong is tried once and is the result of each case."""
    ends = iter([Ended(2, 1.0, None, ("--tokenizer: too many tokens",)), Ended(1, 1.0, None, ("no memory",))])
    monkeypatch.setattr(files, "run_child", lambda command, log: next(ends))
    made, large = Files(tmp_path), replace(case("x"), model="llama3 8b")
    with pytest.raises(UserError, match="^--tokenizer: too many tokens$"):
        runner.run_case(large, made, FACTS)
    for _ in range(2):
        run = runner.run_case(large, made, FACTS)
        assert (run["status"], run["reason"]) == (FAILED, "a checkpoint of llama3 8b cannot be made: no memory")


def test_a_meter_leaves_the_warm_up_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 14.0])
    monkeypatch.setattr("component.pipeline.benchmark.baseline.time.monotonic", lambda: next(times))
    meter = Meter(2, tmp_path / "first")
    for step in range(4):
        meter.count(100 + step, 200)
        meter.count(100, 200)
        assert (tmp_path / "first").exists() is (step > 0)
        meter.end_step(float(step))
    result = meter.result()
    assert result["real_tokens_per_second"] == (102 + 100 + 103 + 100) / 4
    assert result["padded_tokens_per_second"] == 800 / 4
    assert (result["first_loss"], result["last_loss"]) == (0.0, 3.0)


def test_baselines_read_what_train_reads(tiny_model: Path, tmp_path: Path) -> None:
    """The ids are those of the chat template, the loss leaves out the prompt, long rows are cut at the end."""
    from transformers import AutoTokenizer

    path, tokenizer = tmp_path / "rows.jsonl", AutoTokenizer.from_pretrained(tiny_model)
    path.write_text(json.dumps({"conversation": [{"human": "the barn", "assistant": "on the garden near"}]}) + "\n")
    messages = [{"role": "user", "content": "the barn"}, {"role": "assistant", "content": "on the garden near"}]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    (chat,) = read_chats(path, tokenizer, 128)
    assert list(chat.input_ids) == ids and chat.prompt + chat.answer == tokenizer.decode(ids)
    kept = [label for label in chat.labels if label != -100]
    assert tokenizer.decode(kept) == "on the garden near<|end|>" and len(chat.labels) == len(ids)
    (cut,) = read_chats(path, tokenizer, len(ids) - 2)
    assert list(cut.input_ids) == ids[:-2]
