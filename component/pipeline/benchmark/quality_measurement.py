"""Measure cases of suite `quality` in this process, one by one, beside other processes; each result is kept at once."""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from component.artifacts.metrics import read_metrics
from component.config.errors import UserError
from component.pipeline.benchmark.child import INTERVAL
from component.pipeline.benchmark.gradient_error import (
    compare_gradients,
    step_gradients,
    write_long_rows,
    write_wide_model,
)
from component.pipeline.benchmark.locked_file import locked
from component.pipeline.benchmark.quality_cases import REFERENCE, Case, Scale, Stage
from component.pipeline.benchmark.quality_claims import claim_first, join_scratch
from component.pipeline.benchmark.quality_progress import pending_cases, unlocks_others
from component.pipeline.benchmark.quality_rows import HELD_OUT, TEXTS, TRAIN, write_questions, write_rows
from component.pipeline.benchmark.results import DONE, Results, now
from component.pipeline.run import run
from component.runtime.environment import REPOSITORY, environment_facts

#: Texts in a row of the wide model; more than fill it are cut.
NUM_TEXTS = 24
MAX_NEW_TOKENS = 16


def measure_quality(
    scale: Scale, stage: Stage, results: Results, folder: Path, *, deadline: float, worker: int = 0
) -> None:
    """Measure what has no result yet and no other process has claimed, until a time of `time.monotonic()`.

    Args:
        folder: of the small model, rows and runs.
        worker: number of this process, which its claims have.

    Raises:
        Exception: whatever a case fails with; the claims name it.
    """
    surroundings, _hold = environment_facts(REPOSITORY), join_scratch(folder)
    for case in _claimed_cases(scale, stage, results, folder, deadline=deadline, worker=worker):
        began = time.monotonic()
        measured = MEASURES[case.kind](case, folder)
        kept = {"status": DONE, "date": now(), **measured, "seconds": round(time.monotonic() - began, 2)}
        results.add(case, kept, surroundings)
        gc.collect()


def _claimed_cases(
    scale: Scale, stage: Stage, results: Results, folder: Path, *, deadline: float, worker: int
) -> Iterator[Case]:
    """Cases to measure, each claimed; waits where others may still come of what other processes are at."""
    suite = os.getppid()  # changes when the suite is killed, which then leaves no process that goes on
    while time.monotonic() <= deadline and os.getppid() == suite:
        results.reload()
        pending = pending_cases(scale, results, stage)
        case = claim_first(folder, pending, worker)
        if case is not None:
            yield case
        elif any(map(unlocks_others, pending)):
            time.sleep(INTERVAL)
        else:
            return


def check_scratch(scale: Scale, results: Results, folder: Path) -> None:
    """Check that what the cases to come are made of is there: results alone are not enough to go on.

    Raises:
        UserError: something is missing.
    """
    pending = [case for stage in scale.stages for case in pending_cases(scale, results, stage)]
    needed = [folder / "base"] if any(case.kind != "base" for case in pending) else []
    needed += [folder / "runs" / case.folder for case in pending if case.kind == "answers"]
    for case in pending:
        if case.kind == "gradient" and case.name != REFERENCE:
            needed += [folder / "wide", folder / f"reference-{case.keys['train_mode']}.safetensors"]
    missing = next((path for path in needed if not path.exists()), None)
    if missing is not None:
        raise UserError(
            f"--scratch: {missing} is missing, from which the results in {results.path} go on; name the --scratch that "
            "they were made with, or another --output"
        )


def _measure_base(case: Case, folder: Path) -> dict[str, Any]:
    """Make the small model and pretrain it."""
    from component.models.tiny import Shape, make_tiny_model

    shutil.rmtree(folder / "start", ignore_errors=True)
    width = int(case.base["shape"]["hidden_size"])
    shape = Shape(**{"initializer_range": width**-0.5, **case.base["shape"]})
    made = make_tiny_model(folder / "start", shape=shape, seed=0, texts=[TEXTS])
    trained = _train(case, folder, {"model_name_or_path": str(folder / "start"), "train_file": str(TEXTS)})
    # The others name it by its place.
    shutil.rmtree(folder / "base", ignore_errors=True)
    (folder / "runs" / case.folder).rename(folder / "base")
    return {**trained, **made}


def _measure_run(case: Case, folder: Path) -> dict[str, Any]:
    """Train from the small model, and evaluate what the kind of the case asks for."""
    trained = _train(case, folder, {"model_name_or_path": str(folder / "base"), **_files(case, folder / "data")})
    if case.kind == "curve":
        records = read_metrics(folder / "runs" / case.folder)
        trained["losses"] = [record["loss"] for record in records if "loss" in record]
    return trained


def _files(case: Case, data: Path) -> dict[str, str]:
    """What a run trains on and is evaluated on; a curve has all of the demo's rows."""
    if case.kind == "curve":
        return {"train_file": str(TRAIN), "eval_file": str(HELD_OUT)}
    rows, left_out = write_rows(data, case.seed, num_rows=case.data["rows"])
    asked = left_out if case.kind == "rate" else write_questions(data, num_questions=case.data["questions"])
    return {"train_file": str(rows), "eval_file": str(asked)}


def _measure_answers(case: Case, folder: Path) -> dict[str, Any]:
    """Ask the held-out questions."""
    from component.pipeline.answer import load_answerer, score_exact_match

    answerer = load_answerer(str(folder / "runs" / case.folder), use_cpu=bool(case.keys.get("use_cpu")))
    questions = write_questions(folder / "data", num_questions=case.data["questions"])
    score = score_exact_match(answerer, [str(questions)], max_new_tokens=MAX_NEW_TOKENS)
    return {"num_exact": score.num_exact, "num_questions": score.num_questions}


def _measure_gradient(case: Case, folder: Path) -> dict[str, Any]:
    """Keep the gradients of the reference, or hold others against them."""
    model, rows = folder / "wide", folder / "data" / "long.jsonl"
    mode = case.keys["train_mode"]
    rows.parent.mkdir(parents=True, exist_ok=True)
    if case.name == REFERENCE:  # the first of all, in a process without Unsloth, which would have to be imported first
        with locked(model):  # each mode has a reference
            write_wide_model(model, case.base["shape"], folder / "base")
            write_long_rows(TEXTS, rows, num_rows=case.keys["per_device_train_batch_size"], num_texts=NUM_TEXTS)
    files = {"model_name_or_path": str(model), "train_file": str(rows)}
    gradients, loss = step_gradients(_config(case, folder, files))
    from safetensors.torch import load_file, save_file

    kept = folder / f"reference-{mode}.safetensors"
    if case.name == REFERENCE:
        save_file(gradients, kept)
    return {"loss": loss, **compare_gradients(gradients, load_file(kept))}


def _train(case: Case, folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    config = _config(case, folder, files)
    shutil.rmtree(config["output_dir"], ignore_errors=True)
    result = run(config, resume="never")
    manifest = json.loads((result.output_dir / "run.json").read_text(encoding="utf-8"))
    names = ("first_loss", "last_loss", "eval_loss", "last_step", "supervised_tokens", "total_tokens")
    return {
        **{name: result.metrics[name] for name in names},
        "got": manifest["loader"]["details"]["got"],
        "notices": manifest["notices"],
    }


def _config(case: Case, folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    places = {"output_dir": str(folder / "runs" / case.folder), "cache_dir": str(folder / "cache")}
    # The rates are the benchmark's subject, and the data is small on purpose.
    return {**case.keys, **files, **places, "seed": case.seed, "accepted_hints": ["learning_rate", "num_train_epochs"]}


MEASURES: Mapping[str, Callable[[Case, Path], dict[str, Any]]] = {
    "base": _measure_base,
    "rate": _measure_run,
    "score": _measure_run,
    "curve": _measure_run,
    "answers": _measure_answers,
    "gradient": _measure_gradient,
}
