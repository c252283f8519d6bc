"""Suite `firefly`: its settings are the published ones, and changes are against the plain recipe at the same size."""

from __future__ import annotations

import argparse

import pytest

from component.pipeline.benchmark.case import BARE_LOOP
from component.pipeline.benchmark.firefly_cases import SETUPS
from component.pipeline.benchmark.firefly_suite import (
    add_options,
    build_cases,
    cells_of,
    change,
    curves,
    render_grid,
    render_published,
)


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_settings_are_the_published_ones() -> None:
    chosen = options("--accumulation", "16", "--steps", "49")
    cells = cells_of(chosen)
    assert len(cells) == 8 and set(cells) == {(n, b) for n in (1024, 2048) for b in (1, 2, 4, 8)}
    (case,) = build_cases("Firefly", cells, chosen).values()
    expected = {
        "train_mode": "qlora", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.05, "fp16": True,
        "optim": "paged_adamw_32bit", "gradient_accumulation_steps": 16, "gradient_checkpointing": True,
        "max_steps": 50, "use_unsloth": False,
    }  # fmt: skip
    assert {key: case.settings[key] for key in expected} == expected
    assert case.program == BARE_LOOP and case.settings["cells"] == [list(cell) for cell in cells]


def test_each_setup_of_train_has_a_case_for_each_size() -> None:
    chosen = options()
    for name, setup in SETUPS.items():
        cases = build_cases(name, cells_of(chosen), chosen)
        assert len({case.key for case in cases.values()}) == (1 if setup.program == BARE_LOOP else 8)


def test_changes_are_against_firefly_at_the_same_size() -> None:
    def result(speed: float, peak: float) -> dict:
        return {"status": "done", "real_tokens_per_second": speed, "peak_allocated_bytes": peak * 2**30}

    cells = [(1024, 1), (1024, 2), (2048, 1)]
    grid = {
        "Firefly": {(1024, 1): result(100, 10), (1024, 2): result(200, 20), (2048, 1): result(10, 1)},
        "x": {(1024, 1): result(150, 5), (1024, 2): result(400, 19), (2048, 1): {"status": "out of memory"}},
    }
    assert change(grid, "x", (1024, 1), "real_tokens_per_second") == pytest.approx(0.5)
    assert change(grid, "x", (2048, 1), "real_tokens_per_second") is None
    assert render_grid(grid, cells).splitlines()[2:] == [
        "| 1024 x 1 | 100 | 10.00 | 150 | 5.00 | +50.00% | -50.00% |",
        "| 1024 x 2 | 200 | 20.00 | 400 | 19.00 | +100.00% | -5.00% |",
        "| 2048 x 1 | 10 | 1.00 | out of memory | - | - | - |",
    ]
    ours = render_published(grid).splitlines()[-1]
    assert ours == (
        "| here, x: median (best) | +75.00% (+100.00%) | -41.67% (-50.00%) | -27.50% (-50.00%) | 5.37 GB (5.00 GiB) |"
    )
    assert curves(grid, cells)[0].curves == {"x, 1024": [(1.0, 1.5), (2.0, 2.0)]}
