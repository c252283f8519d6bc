"""Suite `auto`: points of the grid are configs with one global batch, and the best is the fastest that fits a cap."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from component.config.load import load_config
from component.pipeline.benchmark.auto_cases import GLOBAL_BATCH, auto_case, build_case, grid_points
from component.pipeline.benchmark.auto_suite import Compared, add_options, best_of, count_out_of_memory, render_compared
from component.pipeline.benchmark.table import Line

GIB = 2**30


def line(name: str, speed: float | None, reserved_gib: float = 0.0, **others: Any) -> Line:
    summary = {"status": "done", "real_tokens_per_second": speed, "peak_reserved_bytes": reserved_gib * GIB, **others}
    return Line(build_case(name, "tiny", {}, quick=False), summary if speed else {"status": "out of memory"})


def test_every_point_is_a_config_of_the_same_global_batch() -> None:
    points = list(grid_points([1, 4, 8]))
    assert len(points) == len({point.name for point in points}) == 22
    for point in points:
        case = build_case(point.name, "m", point.settings(), quick=False)
        files = {"model_name_or_path": "m", "train_file": "f", "eval_file": "e", "output_dir": "o"}
        training = load_config({**case.settings, **files}).training
        assert training.per_device_train_batch_size * training.gradient_accumulation_steps == GLOBAL_BATCH


@pytest.mark.parametrize("arguments", [["--caps", "nan"], ["--caps", "0"], ["--caps", "-8"], ["--micro_batches", "3"]])
def test_values_that_mean_nothing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert f"argument {arguments[0]}: got {arguments[1]!r}" in capsys.readouterr().err


def test_a_cap_beyond_the_card_is_none() -> None:
    assert auto_case(141, "m", 139.8, quick=False).settings.get("max_memory_gib") is None
    assert auto_case(80, "m", 139.8, quick=False).settings["max_memory_gib"] == 80
    assert "gradient_accumulation_steps" not in auto_case(80, "m", None, quick=False).settings


def test_the_best_is_the_fastest_that_fits() -> None:
    """CUDA's own 0.55 GiB count: 7.5 GiB reserved do not fit 8."""
    grid = [line("slow", 100, 4.0), line("fast", 300, 7.5), line("middle", 200, 7.4), line("none", None)]
    assert best_of(grid, 8).case.name == "middle"
    assert best_of(grid, 12).case.name == "fast"
    assert best_of(grid, 2) is None


def test_the_table() -> None:
    chosen = {"auto": {"chosen": {"per_device_train_batch_size": 4, "packing": True}}}
    good = Compared(8, line("a", 194.0, 7.0, manifest=chosen), 0, line("b", 200.0, 7.0))
    bad = Compared(12, line("c", None), count_out_of_memory([{"status": "out of memory"}, {"status": "done"}]), None)
    assert good.ratio == pytest.approx(0.97) and bad.ratio is None
    assert render_compared([good, bad]).splitlines()[2:] == [
        "| 8 | per_device_train_batch_size=4 packing=true | 194 | 7.00 | b | 200 | 0.970 | 0 |",
        "| 12 | out of memory | - | - | none fits | - | - | 1 |",
        "",
        "Worst ratio 0.970; 1 runs of auto out of memory.",
    ]
