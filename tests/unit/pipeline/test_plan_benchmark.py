"""The planner's benchmark: its cases are configs, its table compares, and it runs and goes on where it stopped."""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
import time
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from component.artifacts.error_picture import draw_errors
from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.benchmark import plan_processes
from component.pipeline.benchmark.child import Child, Ended
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, CASES, QUICK_CASES
from component.pipeline.benchmark.plan_measurement import Scratch, case_settings, open_results
from component.pipeline.benchmark.plan_processes import Work, measure_pending, visible_gpus
from component.pipeline.benchmark.plan_suite import compare, failures, points, render
from component.pipeline.benchmark.process_memory import release_memory
from component.pipeline.benchmark.results import DONE, FAILED, Results
from component.pipeline.benchmark.suite import UNFINISHED
from component.planning.shape import read_shape


def test_cases(tmp_path: Path) -> None:
    """Varied, valid, named apart, half of them held out of any fitting."""
    assert len(CASES) == 49 == len({case.name for case in CASES})
    assert sum(case.is_held_out for case in CASES) >= 21
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


def test_quick(repository: Path, tmp_path: Path, run_python, monkeypatch, capsys) -> None:
    """Two configs on the CPU: trained, kept, and not trained again; where there is no GPU, memory is not measured."""

    def run_suite() -> str:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path("script/benchmark.py", run_name="__main__")
        output = capsys.readouterr()
        assert (ended.value.code, output.err) == (0, "")
        return output.out

    monkeypatch.setattr(WarmChild, "run_python", staticmethod(run_python), raising=False)
    monkeypatch.setattr(WarmChild, "commands", [])
    monkeypatch.setattr(plan_processes, "Child", WarmChild)
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the script adds to
    arguments = ["script/benchmark.py", "plan", "--quick", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--scratch", str(tmp_path / "files")])
    first = run_suite()
    results = open_results(tmp_path / "plan.json")
    runs = [run for case in QUICK_CASES for run in results.runs(case)]
    assert [len(run["steps"]) for run in runs] == [5, 5] and {run["data"]["longest"] for run in runs} == {64}
    assert (tmp_path / "plan.md").read_text() == first and "\n\nMeasured 20" in first and UNFINISHED not in first
    assert first.startswith("--quick: tiny models, on the CPU, which has no peaks") and "median error" not in first
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert run_suite() == first
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
    measure_pending(work, time.monotonic() + 60)
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
