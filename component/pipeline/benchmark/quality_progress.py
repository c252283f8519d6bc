"""Which cases of suite `quality` follow from the results so far: rates from the small model, scores from rates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from component.pipeline.benchmark.quality_cases import (
    REFERENCE,
    Case,
    Scale,
    Stage,
    answers_case,
    base_case,
    curve_cases,
    gradient_cases,
    rate_cases,
    score_case,
)
from component.pipeline.benchmark.results import DONE, Results
from component.pipeline.benchmark.results_file import Fields

NAME = "quality"
NUMBER = (int, float)
#: Kind of a case -> fields of a run that ended well.
FIELDS: Mapping[str, Fields] = {
    "base": {"num_parameters": int, "last_loss": NUMBER},
    "rate": {"eval_loss": NUMBER},
    "score": {"eval_loss": NUMBER},
    "curve": {"losses": list},
    "answers": {"num_exact": int, "num_questions": int},
    "gradient": {"loss": NUMBER, "error": NUMBER, "cosine": NUMBER, "worst_error": NUMBER},
}


def open_results(path: Path) -> Results:
    """The results of the suite in a file, which may not exist yet.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    return Results(path, NAME, lambda entry: FIELDS.get(str(entry.get("kind")), {}))


def known_cases(scale: Scale, results: Results) -> list[Case]:
    """All cases whose settings are known by now, in the order in which they are worth most: seed by seed."""
    base = base_case(scale)
    if done_run(results, base) is None:
        return [base]
    gradients = gradient_cases(scale)
    references = [case for case in gradients if case.name == REFERENCE]
    done = {case.keys["train_mode"] for case in references if done_run(results, case)}
    others = [case for case in gradients if case not in references and case.keys["train_mode"] in done]
    cases = [base, *references, *others, *rate_cases(scale)]
    rates = chosen_rates(scale, results)
    scores = [
        score_case(scale, way, seed, rates[way.mode]) for seed in scale.seeds for way in scale.ways if way.mode in rates
    ]
    cases += curve_cases(scale, rates["qlora"]) if "qlora" in rates else []
    return [*cases, *scores, *(answers_case(case) for case in scores if done_run(results, case))]


def pending_cases(scale: Scale, results: Results, stage: Stage) -> list[Case]:
    """Cases of a stage that have no result, failures counting as one."""
    return [case for case in known_cases(scale, results) if case.stage == stage and not results.runs(case)]


def unlocks_others(case: Case) -> bool:
    """Whether other cases of its stage may come of its result."""
    return case.kind in ("base", "rate") or (case.kind == "gradient" and case.name == REFERENCE)


def done_run(results: Results, case: Case) -> dict[str, Any] | None:
    """The last run of a case that ended well."""
    return next((run for run in reversed(results.runs(case)) if run["status"] == DONE), None)


def chosen_rates(scale: Scale, results: Results) -> dict[str, float]:
    """Mode -> the learning rate of the lowest mean loss on left-out rows; modes that are not settled are absent."""
    chosen = {mode: rates[0] for mode, rates in scale.rates.items() if len(rates) == 1}
    for mode, losses in rate_losses(scale, results).items():
        if all(len(found) == len(scale.choosing_seeds) for found in losses.values()):
            chosen[mode] = min(losses, key=lambda rate: fmean(losses[rate]))
    return chosen


def rate_losses(scale: Scale, results: Results) -> dict[str, dict[float, list[float]]]:
    """Mode -> learning rate to choose from -> losses on left-out rows, of the seeds that are through."""
    losses: dict[str, dict[float, list[float]]] = {}
    for case in rate_cases(scale):
        found = losses.setdefault(case.keys["train_mode"], {}).setdefault(case.keys["learning_rate"], [])
        run = done_run(results, case)
        found += [run["eval_loss"]] if run else []
    return losses
