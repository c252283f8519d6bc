"""The planner's benchmark: its cases are configs, its table compares, and it runs and goes on where it stopped."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import runpy
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from component.artifacts.error_picture import draw_errors
from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline import build_run
from component.pipeline.benchmark import device, plan_cases, plan_measurement, plan_processes, plan_suite
from component.pipeline.benchmark.child import Child, Ended
from component.pipeline.benchmark.options import quote_names
from component.pipeline.benchmark.plan_caps import cap_runs, render_capped
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, CASES, QUICK_CASES
from component.pipeline.benchmark.plan_comparison import compare
from component.pipeline.benchmark.plan_measurement import CAPPED, Scratch, case_settings, open_results
from component.pipeline.benchmark.plan_processes import Work, measure_pending, smallest_visible_gib, visible_gpus
from component.pipeline.benchmark.plan_suite import capped_runs, failures, points, render
from component.pipeline.benchmark.process_memory import lift_cap, release_memory
from component.pipeline.benchmark.results import DONE, FAILED, OUT_OF_MEMORY, Results
from component.pipeline.benchmark.suite import UNFINISHED
from component.planning.choice import room_on
from component.planning.gpus import CONTEXT_BYTES, GIB
from component.planning.shape import read_shape
from component.runtime.hardware import Hardware


def test_cases(tmp_path: Path) -> None:
    """Varied, valid, named apart, half of them held out of any fitting."""
    assert len(CASES) == 51 == len({case.name for case in CASES})
    assert sum(case.is_held_out for case in CASES) >= 23
    configs = [load_config(case_settings(case, Scratch(tmp_path, "here"))) for case in CASES]
    assert {config.model.train_mode for config in configs} == {"full", "lora", "qlora"}
    assert {config.model.task_type for config in configs} == {"sft", "dpo", "orpo", "kto", "reward"}
    assert {config.model.quantization for config in configs} == {"int4", "int8"}
    assert len({config.training.optim for config in configs}) == 5
    assert {case.loader for case in CASES} == {"vanilla", "unsloth"}
    sizes = {read_shape(CASE_SHAPES[case.shape]).num_parameters for case in CASES}
    assert min(sizes) < 0.4e9 and max(sizes) > 8e9
    assert min(case.length for case in CASES) == 512 and max(case.length for case in CASES) == 8192


def result(case, tmp_path: Path, *, allocated: float, seconds: float) -> dict:
    hardware = {"kind": "cuda", "name": "NVIDIA H200", "total_memory_bytes": 150e9, "compute_capability": [9, 0]}
    rows = {"num_rows": 16, "mean_tokens": case.length, "longest": case.length}
    return {
        "settings": case_settings(case, Scratch(tmp_path, "here")),
        "loader": case.loader,
        "precision": ["bfloat16", "bfloat16"],
        "data": rows,
        "gpu": hardware,
        "peak_allocated_bytes": allocated,
        "peak_reserved_bytes": 2 * allocated,
        "steps": [9.0, seconds],
        "loss": None,
        "jobs": 1,
    }


GPU = {"name": "NVIDIA H200", "driver": "580", "memory": "143771 MiB"}
SURROUNDINGS = {"gpus": [], "cpu": "a CPU", "python": "3", "packages": {}, "git": {"commit": None}}


def keep(path: Path, *items: tuple[Any, dict]) -> Results:
    """A file of results; a run without a status has ended well."""
    results = Results(path, "plan")
    for case, run in items:
        results.add(case, {"status": DONE, "date": "2026-11-29", **run}, SURROUNDINGS)
    return results


def test_errors_are_shares_of_what_was_measured(tmp_path: Path) -> None:
    fitted, held_out, broken = CASES[6], CASES[14], CASES[15]
    one, other = (result(case, tmp_path, allocated=1.0, seconds=1.0) for case in (fitted, held_out))
    results = keep(tmp_path / "a.json", (fitted, one), (held_out, other))
    first, second = (item.predicted for item in compare(CASES, results))
    one |= {"peak_allocated_bytes": first.memory.allocated / 1.1, "steps": [9.0, first.time.seconds]}
    one["peak_reserved_bytes"] = first.memory.reserved / 1.101
    other |= {"peak_allocated_bytes": second.memory.allocated / 0.9, "peak_reserved_bytes": None}
    failed = {"status": FAILED, "lines": ["something", "CUDA error"]}
    results = keep(tmp_path / "b.json", (fitted, one), (held_out, other), (broken, failed))
    compared = compare(CASES, results)
    assert [item.errors().get("allocated") for item in compared] == pytest.approx([0.1, -0.1])
    assert compared[0].errors()["time"] == pytest.approx(0)
    table = render(compared, failures(Work(CASES, results, tmp_path)))
    assert f"| {broken.name} | failed: CUDA error |" in table
    assert "| all | 2 | allocated | 10.0% | 10.0% |" in table
    assert "| held out | 1 | allocated | 10.0% | 10.0% |" in table
    assert "| held out | 1 | reserved" not in table
    assert "\nPlanned to reserve more than 10% above what was measured: 1 of 1." in table
    assert {name: len(items) for name, items in points(compared).items()} == {"allocated": 2, "reserved": 1, "time": 2}
    one["jobs"] = 2  # beside another process no time is measured
    beside = compare(CASES, keep(tmp_path / "c.json", (fitted, one), (held_out, other)))
    assert {name: len(items) for name, items in points(beside).items()}["time"] == 1
    draw_errors(points(compared), tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")


def test_damaged_results_say_where(tmp_path: Path) -> None:
    path, case = tmp_path / "plan.json", CASES[6]
    whole = result(case, tmp_path, allocated=1, seconds=1.0)
    keep(path, (case, whole))
    path.write_text(path.read_text().replace('"steps": [', '"stops": ['), encoding="utf-8")
    with pytest.raises(UserError, match=r"plan.json: cases\[0\]\.runs\[0\]\.steps is missing"):
        open_results(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="plan.json: holds no JSON object"):
        open_results(path)


DAMAGES: tuple[tuple[str, Any, str], ...] = (
    ("gpu", {}, ".gpu.kind is missing"),
    ("gpu", [], ".gpu is no JSON object"),
    ("gpu.compute_capability", None, ".gpu.compute_capability is of the wrong type, NoneType"),
    ("gpu.compute_capability", [9], ".gpu.compute_capability has 1 items, and needs 2"),
    ("data", {}, ".data.num_rows is missing"),
    ("data.shortest", 1, ".data.shortest is unknown"),
    ("data.longest", "x", ".data.longest is of the wrong type, str"),
    ("data.learned_share", "x", ".data.learned_share is of the wrong type, str"),
    ("precision", [], ".precision has 0 items, and needs 2"),
    ("precision", ["bf17", "x"], ".precision[0] is 'bf17', none of float32, bfloat16, float16"),
    ("precision", [["float32"], "float32"], ".precision[0] is ['float32'], none of"),
    ("precision", ["float32"] * 3, ".precision has more than two items"),
    ("loss", {}, ".loss.got is missing"),
    ("steps", [1.0], ".steps has 1 items, and needs 2"),
    ("steps", [1.0, None], ".steps[1] is of the wrong type, NoneType"),
)


@pytest.mark.parametrize(("place", "value", "problem"), DAMAGES)
def test_damaged_parts_say_where(place: str, value: Any, problem: str, tmp_path: Path) -> None:
    path, case = tmp_path / "plan.json", CASES[6]
    run = result(case, tmp_path, allocated=1, seconds=1.0)
    *parents, name = place.split(".")
    part = run[parents[0]] if parents else run
    part[name] = value
    keep(path, (case, run))
    with pytest.raises(UserError) as refused:
        capped_runs(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: cases[0].runs[0]{problem}") and said.endswith("or name another --capped FILE")


def test_settings_that_are_no_config_say_where(tmp_path: Path) -> None:
    path, case = tmp_path / "plan.json", CASES[6]
    run = result(case, tmp_path, allocated=1, seconds=1.0)
    keep(path, (case, {**run, "settings": {**run["settings"], "lora_rang": 8}}))
    with pytest.raises(UserError) as refused:
        capped_runs(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: settings of a run of '{case.name}': config: lora_rang: unknown key")
    assert said.endswith("or name another --capped FILE") and "\n" not in said


@pytest.mark.parametrize(
    ("lines", "problem"), [({}, "lines is missing"), ({"lines": [None]}, r"lines\[0\] is of the wrong type")]
)
def test_failed_runs_have_lines(lines: dict, problem: str, tmp_path: Path) -> None:
    """Their last one is in the table."""
    for status in (FAILED, OUT_OF_MEMORY):
        path = keep(tmp_path / f"{status}.json", (CASES[6], {"status": status, **lines})).path
        with pytest.raises(UserError, match=rf"cases\[0\]\.runs\[0\]\.{problem}"):
            open_results(path)


def test_release_lets_go_of_embeddings_that_bitsandbytes_lists() -> None:
    """transformers' Trainer registers them so for 8-bit optimizers; the list would keep them for good."""
    from bitsandbytes.optim import GlobalOptimManager

    embeddings = nn.Embedding(4, 4)
    weight = weakref.ref(embeddings.weight)
    GlobalOptimManager.get_instance().register_module_override(embeddings, "weight", {"optim_bits": 32})
    del embeddings
    gc.collect()
    assert weight() is not None
    release_memory()
    assert weight() is None


def test_release_leaves_buffers_that_unsloth_has_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module cannot be imported without a GPU; this one fails as it does, and is reset once there are buffers."""
    module = ModuleType("unsloth_zoo.gradient_checkpointing")
    exec("def reset_unsloth_gradient_checkpointing_buffers():\n    GPU_BUFFERS.clear()", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    release_memory()
    module.GPU_BUFFERS = ["buffer"]
    release_memory()
    assert module.GPU_BUFFERS == []


class WarmChild:
    """Runs a child's command to its end in a process that has its imports already."""

    commands: list[list[str]] = []

    def __init__(self, command: list[str], **_options: Any) -> None:
        self.commands.append(command)
        self.code = self.run_python(command).returncode

    def has_ended(self) -> bool:
        return True

    def ended(self) -> Ended:
        return Ended(self.code, 0.0, None, ())


class Script:
    """script/benchmark.py plan in this process, with results and scratch in a folder."""

    def __init__(self, folder: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.chdir(repository)
        monkeypatch.setattr(sys, "path", list(sys.path))  # which the script adds to
        self._places = ["--output", str(folder), "--scratch", str(folder / "files")]
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code and both outputs."""
        self._monkeypatch.setattr(sys, "argv", ["script/benchmark.py", "plan", *self._places, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path("script/benchmark.py", run_name="__main__")
        output = self._capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err


@pytest.fixture
def script(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Script:
    return Script(tmp_path, repository, monkeypatch, capsys)


def test_quick(script: Script, tmp_path: Path, run_python, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two configs on the CPU: trained, kept, and not trained again; where there is no GPU, memory is not measured."""
    monkeypatch.setattr(WarmChild, "run_python", staticmethod(run_python), raising=False)
    monkeypatch.setattr(WarmChild, "commands", [])
    monkeypatch.setattr(plan_processes, "Child", WarmChild)
    code, said, error = script("--quick")
    assert (code, error) == (0, "")
    *told, first = said.split("\n", 2)
    assert [line.split(": ")[0] for line in told] == [case.name for case in QUICK_CASES]
    assert all(re.fullmatch(r".+: \d+ s", line) for line in told)
    results = open_results(tmp_path / "plan.json")
    runs = [run for case in QUICK_CASES for run in results.runs(case)]
    assert [len(run["steps"]) for run in runs] == [5, 5] and {run["data"]["longest"] for run in runs} == {64}
    assert (tmp_path / "plan.md").read_text() == first and "\n\nMeasured 20" in first and UNFINISHED not in first
    assert first.startswith("--quick: tiny models, on the CPU, which has no peaks") and "median error" not in first
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert script("--quick") == (0, first, "")
    assert json.loads((tmp_path / "plan.json").read_text()) == kept
    assert len(WarmChild.commands) == 2


#: Keeps a result that tells where it was made, once the other card's process is at work too; the third case fails.
STAND_IN = """
import os, sys, time
from pathlib import Path
from component.pipeline.benchmark.plan_cases import CASES
from component.pipeline.benchmark.results import FAILED, Results
from component.runtime.environment import environment_facts
results, name = Path(sys.argv[1]), sys.argv[2]
number = [case.name for case in CASES].index(name)
results.with_name(f"begun-{number}").touch()
deadline = time.monotonic() + 60
while not results.with_name(f"begun-{1 - number % 2}").exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
if number == 2:
    sys.exit("no memory is left")
where = [os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]]
surroundings = environment_facts(Path())
Results(results, "plan").add(CASES[number], {"status": FAILED, "date": "2026-11-29", "lines": where}, surroundings)
"""


@pytest.mark.parametrize("visible", ["5,7", "5"])
def test_processes_side_by_side(visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on each card that may be seen, or two on one; a failure is a result."""

    commands: list[list[str]] = []

    class StandIn(Child):
        def __init__(self, command: list[str], **options: Any) -> None:
            commands.append(command)
            name = command[command.index("--measure") + 1]
            super().__init__([sys.executable, "-c", STAND_IN, str(tmp_path / "plan.json"), name], **options)

    monkeypatch.setattr(plan_processes, "Child", StandIn)
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [{}] * 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    jobs = 2 // len(visible.split(","))
    results = open_results(tmp_path / "plan.json")
    work = Work(CASES[:4], results, tmp_path / "files", jobs)
    told: list[str] = []
    measure_pending(work, time.monotonic() + 60, told.append)
    assert sorted(told) == sorted(f"{case.name}: failed" for case in work.cases)
    assert work.pending() == []
    lines = [run["lines"] for case in work.cases for run in results.runs(case)]
    assert lines.pop(2) == ["no memory is left"]
    assert lines[:2] == [["5", "4"], [visible[-1], "4"]] and lines[2] in lines[:2]
    assert {command[command.index("--jobs") + 1] for command in commands} == {str(jobs)}


@pytest.mark.parametrize(
    ("chosen", "num_gpus", "visible"),
    [(None, 2, ["0", "1"]), (None, 0, []), ("1", 2, ["1"]), ("3,1", 4, ["3", "1"]), ("", 2, []), ("0", 0, [])],
)
def test_cards_that_a_process_may_see(chosen, num_gpus: int, visible: list[str], monkeypatch) -> None:
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [{}] * num_gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == visible


def test_caps_are_the_smallest_cards(repository: Path) -> None:
    """To a MiB, for all 51 that were measured: by the rule of a choice with the margin, and without any."""
    runs = capped_runs(repository / "docs/benchmarks/plan.json")
    assert len(runs) == 2 * 51 and len({run.case.name for run in runs}) == 2 * 51
    assert [run.case.config for run in runs[::2]] == [run.case.config for run in runs[1::2]] == [c.name for c in CASES]
    room = {"fits": room_on, "tight": lambda memory: memory - CONTEXT_BYTES}
    assert [run.said for run in runs[:2]] == list(room)
    for run in runs:
        cap = run.case.cap_gib
        assert cap is not None and cap * 1024 == int(cap * 1024)
        assert room[run.said]((cap - 1 / 1024) * GIB) < run.planned <= room[run.said](cap * GIB)


@pytest.mark.parametrize("cap", [None, 5.5])
def test_segments_grow_as_in_a_run(cap: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is settled before torch is there, which the look at the card and the checkpoint's weights bring."""
    done: list[str] = []
    monkeypatch.setattr(plan_measurement, "expand_segments", lambda: done.append("segments"))
    monkeypatch.setattr(plan_measurement, "detect_hardware", lambda: done.append("hardware"))
    monkeypatch.setattr(plan_measurement, "check_cap", lambda *_: None)
    monkeypatch.setattr(plan_measurement, "_measure", lambda *_: done.append("run") or {})
    results = Results(tmp_path / "plan.json", "plan")
    plan_measurement.measure_case(replace(CASES[6], cap_gib=cap), results, Scratch(tmp_path, "here"))
    assert done == ["segments", *(["hardware"] if cap else []), "run"]


def test_caps_belong_to_the_case(tmp_path: Path) -> None:
    case = CASES[6]
    fits, tight = (run.case for run in cap_runs(CASES, {case.name: 9.45 * GIB}))
    assert (fits.cap_gib, tight.cap_gib) == (10779 / 1024, 10.0)
    assert tight.name == f"{case.name}, under 10.00 GiB" and tight.config == case.name
    assert load_config(case_settings(tight, Scratch(tmp_path, "here"))).training.max_memory_gib == 10
    results = keep(tmp_path / "plan.json", (tight, result(tight, tmp_path, allocated=1, seconds=1.0)))
    assert [len(results.runs(one)) for one in (case, fits, tight)] == [0, 0, 1]


#: How a process may end, and how that counts under a cap.
ENDS = {
    "import torch\nraise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')": OUT_OF_MEMORY,
    "import torch\nraise torch.AcceleratorError('CUDA error: out of memory\\nFor debugging')": OUT_OF_MEMORY,
    "raise RuntimeError('Triton Error [CUDA]: out of memory')": OUT_OF_MEMORY,
    "raise RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')": OUT_OF_MEMORY,
    "import sys\nsys.exit('Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp')": OUT_OF_MEMORY,
    """
import sys
from component.config.errors import DeviceMemoryError
from component.runtime.command import run_command
def main():
    raise DeviceMemoryError("the model has no room", "run again with a smaller one")
sys.exit(run_command(main))
""": OUT_OF_MEMORY,
    "raise RuntimeError('rows | are of no use')": FAILED,
    "import os\nos.kill(os.getpid(), 9)": FAILED,
}


def end_as(programs: Mapping[str, str], work: Work, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Measure with a program for each name of a config; gives the commands that were asked for."""
    commands: list[list[str]] = []

    class Ending(Child):
        def __init__(self, command: list[str], **options: Any) -> None:
            commands.append(command)
            program = programs[command[command.index("--measure") + 1]]
            super().__init__([sys.executable, "-c", program], **options)

    monkeypatch.setattr(plan_processes, "Child", Ending)
    measure_pending(work, time.monotonic() + 60, lambda _text: None)
    assert work.pending() == []
    return commands


def test_out_of_memory_under_a_cap_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {case.name: program for case, program in zip(CASES, ENDS, strict=False)}
    capped = [replace(case, cap_gib=5.5) for case in CASES[: len(ENDS)]]
    work = Work(capped, open_results(tmp_path / f"{CAPPED}.json", CAPPED), tmp_path / "files", jobs=2)
    commands = end_as(programs, work, monkeypatch)
    assert [work.results.runs(case)[0]["status"] for case in capped] == list(ENDS.values())
    assert {command[command.index("--cap") + 1] for command in commands} == {"5.5"}
    assert work.pending() == []


def test_results_do_not_tell_where_the_checkout_lies(repository: Path, tmp_path: Path) -> None:
    program = "import sys; print(sys.argv[1] + '/component/a.py'); print('b.py'); sys.exit(3)"
    child = Child([sys.executable, "-c", program, str(repository)], log=tmp_path / "log.txt")
    assert child.process.wait(60) == 3
    assert child.ended().lines == (str(Path("component/a.py")), "b.py")


def test_retry_takes_all_but_what_ended_well(tmp_path: Path) -> None:
    """Neighbours may have had the memory that a config under a cap found lacking."""
    cases = [replace(case, cap_gib=5.5) for case in CASES[:4]]
    kept = [{"status": FAILED}, {"status": OUT_OF_MEMORY}, result(cases[2], tmp_path, allocated=1, seconds=1.0)]
    results = keep(tmp_path / "a.json", *((case, {"lines": [], **run}) for case, run in zip(cases, kept, strict=False)))
    work = Work(cases, results, tmp_path)
    retried = [*cases[:2], cases[3]]
    assert work.pending() == cases[3:] and work.pending(retry=True) == retried
    work.forget_failures()
    assert work.pending() == retried


def test_out_of_memory_without_a_cap_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others on the card may have had the memory."""
    (case, *_), (program, *_) = CASES, ENDS
    work = Work([case], open_results(tmp_path / "plan.json"), tmp_path / "files")
    (command,) = end_as({case.name: program}, work, monkeypatch)
    assert work.results.runs(case)[0]["status"] == FAILED and "--cap" not in command


def test_table_of_caps(tmp_path: Path) -> None:
    """One runs under both caps, one under neither, one fails, and one was not run."""
    cases = (CASES[6], CASES[14], CASES[15], CASES[16])
    runs = cap_runs(CASES, {case.name: 9.45 * GIB for case in cases})
    kept = []
    for run in runs[:2]:
        kept.append((run.case, result(run.case, tmp_path, allocated=4.5 * GIB, seconds=1.0)))
    for run in runs[2:4]:
        kept.append((run.case, {"status": OUT_OF_MEMORY, "code": 4, "lines": ["out of memory"]}))
    kept.append((runs[4].case, {"status": FAILED, "code": 1, "lines": ["RuntimeError: a | b", ""]}))
    lines = render_capped(runs, keep(tmp_path / "a.json", *kept)).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert rows[1] == [cases[0].name, "", "9.45", "fits", "10.53", "9.00", "ran"]
    assert rows[3] == [cases[1].name, "yes", "9.45", "fits", "10.53", "-", "out of memory"]
    assert [row[-1] for row in rows[4:]] == ["out of memory", "failed: RuntimeError: a / b", *["not run"] * 3]
    assert [line for line in lines if line and not line.startswith("|")] == [
        "1 of 3 ran under the memory of the smallest card on which they are said to fit; 1 of 2 without any margin.",
        f"Out of memory: {runs[2].case.name} (fits); {runs[3].case.name} (tight).",
        f"Failed: {runs[4].case.name} (fits).",
    ]


def test_caps_that_cannot_be_tried(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line: no GPU, nothing measured, results of another kind, and the caps' own results."""
    recorded = "docs/benchmarks/plan.json"
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [])
    no_cap = f"{plan_suite.NO_CAP}\n"
    assert script("--capped", recorded) == (2, "", no_cap)
    assert script("--capped", recorded, "--quick") == (2, "", f"{plan_suite.QUICK_CAP}\n")
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [GPU])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the machine has a card that no process may see
    assert script("--capped", recorded) == (2, "", no_cap)
    name = "name plan.json of a run without --capped\n"
    code, _, said = script("--capped", str(tmp_path / "none.json"))
    assert (code, said) == (2, f"--capped: {tmp_path}/none.json: no such file; {name}")
    assert script("--capped", str(tmp_path))[2] == f"--capped: {tmp_path}: not a file; {name}"
    empty = keep(tmp_path / "empty.json", (CASES[6], {"status": FAILED, "code": 1, "lines": []}))
    code, _, said = script("--capped", str(empty.path))
    assert (code, said) == (2, f"--capped: {empty.path} has no config that ended well; {name}")
    code, _, said = script("--capped", "docs/benchmarks/auto-3b.json")
    assert code == 2 and "results of suite auto, not of plan; move it, or name another --capped FILE\n" in said
    (tmp_path / "damaged.json").write_text("[]", encoding="utf-8")
    code, _, said = script("--capped", str(tmp_path / "damaged.json"))
    assert code == 2 and said.endswith("; mend or move the file, or name another --capped FILE\n")
    case = replace(CASES[6], cap_gib=4.0)
    failed = {"status": FAILED, "date": "2026-11-29", "lines": []}
    open_results(tmp_path / f"{CAPPED}.json", CAPPED).add(case, failed, SURROUNDINGS)
    code, _, said = script("--capped", str(tmp_path / f"{CAPPED}.json"))
    assert code == 2 and f"results of suite {CAPPED}, not of plan" in said


def test_caps_of_configs_that_the_suite_does_not_have(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ended well, which the message does not deny: it names the shapes that are not known, or the configs."""
    instead = "name plan.json of a run without --capped\n"
    other = replace(CASES[6], shape="llama9 4b")
    ended = (other, result(other, tmp_path, allocated=1, seconds=1.0))
    unknown = keep(tmp_path / "unknown.json", ended).path
    what = "has configs that ended well of shapes that the suite does not know"
    known = quote_names(CASE_SHAPES)
    line = f'--capped: {unknown} {what}: "llama9 4b"; known are {known}; {instead}'
    assert script("--capped", str(unknown)) == (2, "", line)
    quick = QUICK_CASES[0]
    tiny = keep(tmp_path / "tiny.json", (quick, result(quick, tmp_path, allocated=1, seconds=1.0))).path
    line = f'--capped: {tiny} has configs that ended well, but none of the suite\'s own: "{quick.name}"; {instead}'
    assert script("--capped", str(tiny)) == (2, "", line)
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [])
    both = keep(tmp_path / "both.json", ended, (CASES[6], result(CASES[6], tmp_path, allocated=1, seconds=1.0))).path
    said = f'--capped: {both} {what}, which are left out: "llama9 4b"\n'
    assert script("--capped", str(both)) == (2, said, f"{plan_suite.NO_CAP}\n")


def test_options_that_would_be_passed_over(script: Script, tmp_path: Path) -> None:
    for arguments in (["--cap", "3.5"], ["--measure", CASES[6].name, "--capped", "docs/benchmarks/plan.json"]):
        code, said, error = script(*arguments)
        assert (code, said) == (2, "") and error.startswith(f"{arguments[0]}: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_capped(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a measurement with one config its two caps are run, the smaller first, kept in a file of their own, and not
    run again.
    """
    measured = keep(tmp_path / "plan.json", (CASES[6], result(CASES[6], tmp_path, allocated=GIB, seconds=1.0)))
    before = measured.path.read_text()
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [GPU])
    monkeypatch.setattr(plan_processes, "_start", lambda _work, case, *_: Stopped(case.name))
    runs = capped_runs(measured.path)
    code, written, error = script("--capped", str(measured.path))
    *told, said = written.split("\n", 2)
    assert told == [f"{run.case.name}: out of memory" for run in reversed(runs)]
    assert (code, error) == (0, "") and said == (tmp_path / f"{CAPPED}.md").read_text()
    kept = open_results(tmp_path / f"{CAPPED}.json", CAPPED)
    assert [kept.runs(run.case)[0]["lines"] for run in runs] == [[f"CUDA out of memory: {r.case.name}"] for r in runs]
    assert "0 of 1 ran under the memory" in said and "; 0 of 1 without any margin" in said and UNFINISHED not in said
    assert f"Left out, without a measurement to plan from: {CASES[0].name}; " in said and len(runs) == 2
    assert measured.path.read_text() == before and not (tmp_path / "plan.md").exists()
    monkeypatch.setattr(plan_processes, "_start", None)
    before = kept.path.read_text()
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [])
    assert script("--capped", str(measured.path))[1] == said
    assert script("--capped", str(measured.path), "--retry")[0] == 2 and kept.path.read_text() == before
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [GPU])
    monkeypatch.setattr(plan_processes, "_start", lambda _work, case, *_: Stopped(f"again {case.name}"))
    assert script("--capped", str(measured.path), "--retry")[1].splitlines()[2:11] == said.splitlines()[:9]
    kept.reload()
    assert [[line for one in kept.runs(run.case) for line in one["lines"]] for run in runs] == [
        [f"CUDA out of memory: again {run.case.name}"] for run in runs
    ]


def test_what_ran_under_less_is_not_run_under_more(script: Script, tmp_path: Path, monkeypatch) -> None:
    measured = keep(tmp_path / "plan.json", (CASES[6], result(CASES[6], tmp_path, allocated=GIB, seconds=1.0)))
    _, tight = capped_runs(measured.path)
    kept = open_results(tmp_path / f"{CAPPED}.json", CAPPED)
    done = {**result(tight.case, tmp_path, allocated=GIB, seconds=1.0), "status": DONE, "date": "2026-11-29"}
    kept.add(tight.case, done, SURROUNDINGS)
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [])  # nothing is left for one
    code, said, _ = script("--capped", str(measured.path))
    assert code == 0 and UNFINISHED not in said
    assert [line.split(" | ")[-1] for line in said.splitlines()[2:4]] == ["ran under less |", "ran |"]
    assert "1 of 1 ran under the memory" in said and "; 1 of 1 without any margin" in said


def test_a_card_between_the_caps(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out of a config that ran under less, whatever ended badly under more."""
    measured = keep(tmp_path / "plan.json", (CASES[6], result(CASES[6], tmp_path, allocated=GIB, seconds=1.0)))
    fits, tight = capped_runs(measured.path)
    between = f"{math.ceil((fits.case.cap_gib + tight.case.cap_gib) * 512)} MiB"
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [{**GPU, "memory": between}])
    kept = open_results(tmp_path / f"{CAPPED}.json", CAPPED)
    done = {**result(tight.case, tmp_path, allocated=GIB, seconds=1.0), "status": DONE, "date": "2026-11-29"}

    def run(work: Work, case: plan_cases.Case, *_: Any) -> Stopped:
        work.results.add(case, done, SURROUNDINGS)
        return Stopped(case.name, code=0)

    monkeypatch.setattr(plan_processes, "_start", run)
    code, said, error = script("--capped", str(measured.path))
    assert (code, error) == (0, "") and "Left out, under" not in said and UNFINISHED not in said
    assert "1 of 1 ran under the memory" in said and "; 1 of 1 without any margin" in said
    kept.add(fits.case, {"status": OUT_OF_MEMORY, "date": "2026-11-29", "lines": []}, SURROUNDINGS)
    monkeypatch.setattr(plan_processes, "_start", None)
    for options in ([], ["--retry"]):
        assert "1 of 1 ran under the memory" in script("--capped", str(measured.path), *options)[1]


def test_retry_without_a_gpu_forgets_nothing(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = keep(tmp_path / "plan.json", *((case, {"status": FAILED, "lines": ["no"]}) for case in CASES))
    before = results.path.read_text()
    monkeypatch.setattr(device, "nvidia_gpus", lambda: [])
    code, _, said = script("--retry")
    assert code == 2 and "nvidia-smi finds no NVIDIA GPU here" in said and results.path.read_text() == before


def test_caps_beyond_the_card_are_left_out(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And named; one that a larger card has run before is shown."""
    cases = (CASES[6], CASES[14])
    measured = keep(
        tmp_path / "plan.json", *((case, result(case, tmp_path, allocated=GIB, seconds=1.0)) for case in cases)
    )
    runs = capped_runs(measured.path)  # the last one under 11.67 GiB
    kept = open_results(tmp_path / f"{CAPPED}.json", CAPPED)
    done = {**result(runs[0].case, tmp_path, allocated=GIB, seconds=1.0), "status": DONE, "date": "2026-11-29"}
    kept.add(runs[0].case, done, SURROUNDINGS)
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [{**GPU, "memory": "12288 MiB"}])
    monkeypatch.setattr(plan_processes, "_start", lambda _work, case, *_: Stopped(case.name))
    code, said, error = script("--capped", str(measured.path))
    assert (code, error) == (0, "") and UNFINISHED not in said
    left_out = "; ".join(run.case.name for run in runs[1:3])
    assert f"\nLeft out, under more than the 12.00 GiB of the smallest GPU here: {left_out}.\n" in said
    kept.reload()
    assert [len(kept.runs(run.case)) for run in runs] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("visible", "smallest"), [(None, 8.0), ("0", 16.0), ("2,0", 16.0), ("GPU-1f", 8.0), ("2", float("inf"))]
)
def test_smallest_card_that_processes_may_see(visible: str | None, smallest: float, monkeypatch) -> None:
    sizes = ("16384 MiB", "8192 MiB", "[N/A]")
    monkeypatch.setattr(plan_processes, "nvidia_gpus", lambda: [{**GPU, "memory": size} for size in sizes])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert smallest_visible_gib() == smallest


class Stopped:
    """A child that had no memory, or none with a complaint."""

    def __init__(self, name: str, code: int = 1) -> None:
        self._name, self._code = name, code

    def has_ended(self) -> bool:
        return True

    def ended(self) -> Ended:
        return Ended(self._code, 0.0, None, (f"CUDA out of memory: {self._name}",))


def card(memory_gib: float) -> Hardware:
    """A GPU as a process sees it."""
    memory = int(memory_gib * GIB)
    return Hardware("cuda", "NVIDIA T", memory, memory, (8, 0), supports_bf16=True, num_devices=1)


def test_a_cap_that_limits_nothing_is_refused(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the process that measures, before it makes anything: without CUDA, and on a card that has less."""
    cases = ((None, "torch finds no NVIDIA GPU"), (card(3.0), "3.50 GiB is more than NVIDIA T has, 3.00 GiB"))
    for hardware, reason in cases:
        if hardware is not None:
            monkeypatch.setattr(plan_measurement, "detect_hardware", lambda hardware=hardware: hardware)
        code, _, said = script("--measure", QUICK_CASES[0].name, "--cap", "3.5")
        assert code == 2 and said.startswith(f"--cap: {reason}") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_ran_under_a_cap_without_peaks(tmp_path: Path) -> None:
    case = replace(CASES[6], cap_gib=4.0)
    run = {**result(case, tmp_path, allocated=1, seconds=1.0), "peak_reserved_bytes": None}
    path = tmp_path / f"{CAPPED}.json"
    Results(path, CAPPED).add(case, {"status": DONE, "date": "2026-11-29", **run}, SURROUNDINGS)
    with pytest.raises(UserError, match=r"cases\[0\]\.runs\[0\]\.peak_reserved_bytes is of the wrong type, NoneType"):
        open_results(path, CAPPED)


def test_a_cap_reaches_the_measurement(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that the suite calls itself with: its run asks for the limit that train.py would, and keeps it."""
    limits: list[float] = []
    monkeypatch.setattr(plan_measurement, "detect_hardware", lambda: card(4.0))
    monkeypatch.setattr(plan_measurement, "_peaks", lambda _: {"peak_allocated_bytes": 1, "peak_reserved_bytes": 2})
    monkeypatch.setattr(build_run, "limit_memory", lambda num_bytes, _hardware: limits.append(num_bytes))
    code, _, error = script("--measure", QUICK_CASES[0].name, "--cap", "3.5")
    assert (code, limits) == (0, [3.5 * GIB - CONTEXT_BYTES]), error
    results = open_results(tmp_path / f"{CAPPED}.json", CAPPED)
    assert results.runs(replace(QUICK_CASES[0], cap_gib=3.5))[0]["settings"]["max_memory_gib"] == 3.5
    assert results.runs(QUICK_CASES[0]) == [] and not (tmp_path / "plan.json").exists()


def test_release_keeps_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between loading and training too; the runs of a shared process lift it for the next one."""
    called: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("empty_cache", "reset_peak_memory_stats", "set_per_process_memory_fraction"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: called.append(name))
    release_memory()
    assert called == ["empty_cache", "reset_peak_memory_stats"]
    lift_cap()
    assert called[2:] == ["set_per_process_memory_fraction"]
