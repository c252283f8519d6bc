"""The page and the picture of suite `quality`, from its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from component.pipeline.benchmark.quality_cases import (
    REFERENCE,
    Scale,
    answers_case,
    base_case,
    curve_cases,
    gradient_cases,
    score_case,
)
from component.pipeline.benchmark.quality_progress import chosen_rates, done_run, known_cases, rate_losses
from component.pipeline.benchmark.quality_statistics import Interval, interval, paired
from component.pipeline.benchmark.results import DONE, Results

LOSS, EXACT = "held-out loss, nats", "held-out questions exactly right, %"
#: What one part of a recipe changes: the part, runs with it, and runs that are the same without it.
PAIRS = (
    ("16-bit LoRA instead of full", "lora", "full"),
    ("the same, packed", "lora, packed", "full, packed"),
    ("4 bit", "qlora", "lora"),
    ("8-bit floats", "lora, fp8 base, packed", "lora, packed"),
    ("packing", "qlora, packed", "qlora"),
    ("Unsloth", "qlora + Unsloth", "qlora"),
    ("Unsloth and packing", "qlora + Unsloth, packed", "qlora"),
)


def scores_of(scale: Scale, results: Results) -> dict[str, dict[str, dict[int, float]]]:
    """What is scored -> way to train -> seed -> score, of the runs that there are."""
    rates, found = chosen_rates(scale, results), {LOSS: {}, EXACT: {}}
    for way in scale.ways:
        of_loss, of_exact = found[LOSS].setdefault(way.name, {}), found[EXACT].setdefault(way.name, {})
        for seed in scale.seeds if way.mode in rates else ():
            case = score_case(scale, way, seed, rates[way.mode])
            if run := done_run(results, case):
                of_loss[seed] = run["eval_loss"]
            if run := done_run(results, answers_case(case)):
                of_exact[seed] = 100 * run["num_exact"] / run["num_questions"]
    return found


def render(scale: Scale, results: Results) -> list[str]:
    """The parts of the page: scores, pairs, learning rates, curves, gradients, failures."""
    parts = [part(scale, results) for part in (_scores, _pairs, _rates, _curves, _gradients)]
    failed = [
        f"- {case.kind}, {case.name}, seed {case.seed}: {_last(run.get('lines', []))}"
        for case in known_cases(scale, results)
        for run in results.runs(case)
        if run["status"] != DONE
    ]
    return ["\n".join(part) for part in parts] + (["\n".join(["## Failed\n", *failed])] if failed else [])


def _scores(scale: Scale, results: Results) -> Iterator[str]:
    rates, found = chosen_rates(scale, results), scores_of(scale, results)
    base = done_run(results, base_case(scale))
    made = f"{base['num_parameters']:,} parameters, pretrained to {base['last_loss']:.3f} nats" if base else "not made"
    yield "## Scores\n"
    yield f"The model: {made}. Each seed has rows, order and adapter of its own; {scale.steps} steps a run."
    yield "Means over seeds with 95 % t-intervals; differences are to full of the same seed, unpacked.\n"
    yield f"| | seeds | learning rate | {LOSS} | difference | {EXACT} | difference |\n|---|---|---|---|---|---|---|"
    for way in scale.ways:
        cells = []
        for scored, digits in ((LOSS, 4), (EXACT, 1)):
            values = found[scored][way.name]
            of_full = found[scored].get("full", {})
            difference = paired(values, of_full) if way.name != "full" else None
            cells += [say_interval(interval(values.values()) if values else None, digits),
                      say_interval(difference, digits, sign="+")]  # fmt: skip
        rate = f"{rates[way.mode]:g}" if way.mode in rates else "-"
        yield f"| {way.name} | {len(found[LOSS][way.name])} | {rate} | {' | '.join(cells)} |"


def _pairs(scale: Scale, results: Results) -> Iterator[str]:
    found = scores_of(scale, results)
    yield "## What each part of a recipe changes\n"
    yield "Means of the paired differences between runs of one seed, with 95 % t-intervals.\n"
    yield f"| | of | less | {LOSS} | {EXACT} |\n|---|---|---|---|---|"
    trained = {way.name for way in scale.ways}
    for part, mine, other in PAIRS:
        if trained >= {mine, other}:
            cells = [
                say_interval(paired(found[scored][mine], found[scored][other]), digits, sign="+")
                for scored, digits in ((LOSS, 4), (EXACT, 2))
            ]
            yield f"| {part} | {mine} | {other} | {' | '.join(cells)} |"


def say_interval(found: Interval | None, digits: int, *, sign: str = "") -> str:
    """A mean and its interval in a table."""
    if found is None:
        return "-"
    half = "" if found.half is None else f" ± {found.half:.{digits}f}"
    return f"{found.mean:{sign}.{digits}f}{half}"


def _rates(scale: Scale, results: Results) -> Iterator[str]:
    rates = chosen_rates(scale, results)
    yield "## Learning rates\n"
    yield "Chosen by the mean loss on left-out rows, on seeds that are not scored; others of a mode take its rate.\n"
    yield "| mode | learning rate | seeds | mean loss, nats | worst | |\n|---|---|---|---|---|---|"
    for mode, losses in rate_losses(scale, results).items():
        for rate, found in losses.items():
            mean, worst = (f"{fmean(found):.4f}", f"{max(found):.4f}") if found else ("-", "-")
            mark = "chosen" if rates.get(mode) == rate else ""
            yield f"| {mode} | {rate:g} | {len(found)} | {mean} | {worst} | {mark} |"


def curves_of(scale: Scale, results: Results) -> dict[str, list[float]]:
    """Name of a path -> its losses, of those that there are."""
    rate = chosen_rates(scale, results).get("qlora")
    cases = curve_cases(scale, rate) if rate is not None else []
    return {case.name: run["losses"] for case in cases if (run := done_run(results, case))}


def _curves(scale: Scale, results: Results) -> Iterator[str]:
    yield "## Loss curves of the plain and the fastest path\n"
    yield "QLoRA, every step on all rows; fastest: Unsloth, packed, variable-length attention, no checkpointing.\n"
    yield f"| path | first loss | last loss | largest difference to {REFERENCE} | at step | to vanilla | at step |"
    yield "|---|---|---|---|---|---|---|"
    curves = curves_of(scale, results)
    for name, losses in curves.items():
        others = {other: curves.get(other) if other != name else None for other in (REFERENCE, "vanilla")}
        cells = (_difference(losses, theirs) for theirs in others.values())
        yield f"| {name} | {losses[0]:.4f} | {losses[-1]:.4f} | {' | '.join(cells)} |"


def _difference(losses: Sequence[float], others: Sequence[float] | None) -> str:
    if others is None:
        return "- | -"
    differences = [abs(mine - theirs) for mine, theirs in zip(losses, others, strict=True)]
    return f"{max(differences):.5f} | {1 + differences.index(max(differences))}"


def gradient_runs(scale: Scale, results: Results) -> dict[tuple[str, str], dict[str, Any]]:
    """Mode and name -> run, of those that there are."""
    found = {(case.keys["train_mode"], case.name): done_run(results, case) for case in gradient_cases(scale)}
    return {key: run for key, run in found.items() if run is not None}


def _gradients(scale: Scale, results: Results) -> Iterator[str]:
    sizes, (rows, tokens) = scale.wide, scale.wide_rows
    yield "## Gradients of one step against float32\n"
    yield (
        f"A random Llama of {sizes['num_hidden_layers']} layers of width {sizes['hidden_size']}, {rows} rows of up to "
        f"{tokens} tokens; the adapter's gradients as one vector; for qlora all compute with the same 4-bit weights.\n"
    )
    yield "| mode | path | loss | norm of the difference / norm | cosine | worst matrix |\n|---|---|---|---|---|---|"
    for (mode, name), run in gradient_runs(scale, results).items():
        numbers = f"{run['loss']:.5f} | {run['error']:.3%} | {run['cosine']:.7f} | {run['worst_error']:.3%}"
        yield f"| {mode} | {name} | {numbers} |"


def pictured(
    scale: Scale, results: Results
) -> tuple[dict[str, list[tuple[str, float, float | None]]], dict[str, list[float]], dict[str, float]]:
    """The arguments of `draw_quality`."""
    scores = {
        scored: [(name, found.mean, found.half) for name, values in ways.items() if values
                 for found in (interval(values.values()),)]
        for scored, ways in scores_of(scale, results).items()
    }  # fmt: skip
    errors = {
        f"{mode}, {name}": run["error"] for (mode, name), run in gradient_runs(scale, results).items()
        if name != REFERENCE
    }  # fmt: skip
    return scores, curves_of(scale, results), errors


def _last(lines: Sequence[str]) -> str:
    return lines[-1] if lines else "no output"
