"""Suite `auto`: points of the grid are configs with one global batch, and the best is the fastest that fits a cap."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.batches import settle_batches
from component.pipeline.benchmark.auto_cases import GLOBAL_BATCH, auto_case, build_case, grid_points
from component.pipeline.benchmark.auto_suite import (
    Compared,
    add_options,
    best_of,
    count_out_of_memory,
    render_compared,
    wanted_points,
)
from component.pipeline.benchmark.files import sizes_of
from component.pipeline.benchmark.table import Line
from component.pipeline.choose_settings import Surroundings, settle
from component.planning.choice import room_on
from component.planning.gpus import GPUS
from component.planning.read_config import DataSize, Setting
from component.planning.shape import read_shape

GIB = 2**30


def line(name: str, speed: float | None, reserved_gib: float = 0.0, **others: Any) -> Line:
    speeds = {"median_tokens_per_second": speed, "real_tokens_per_second": speed and 0.9 * speed}
    summary = {"status": "done", **speeds, "peak_reserved_bytes": reserved_gib * GIB, **others}
    return Line(build_case(name, "tiny", {}, quick=False), summary if speed else {"status": "out of memory"})


def test_every_point_is_a_config_of_the_same_global_batch() -> None:
    points = list(grid_points([1, 4, 8], may_offload=True))
    assert [point for point in points if not point.offloaded] == list(grid_points([1, 4, 8], may_offload=False))
    assert len(points) == len({point.name for point in points}) == 28
    for point in points:
        case = build_case(point.name, "m", point.settings(32), quick=False)
        files = {"model_name_or_path": "m", "train_file": "f", "eval_file": "e", "output_dir": "o"}
        config = load_config({**case.settings, **files})
        assert config.model.offload_embedding is point.name.endswith(" offloaded")
        assert config.model.offload_head is point.name.endswith(", embedding and head offloaded")
        training = config.training
        assert training.per_device_train_batch_size * training.gradient_accumulation_steps == GLOBAL_BATCH


def test_points_by_parts_of_their_names() -> None:
    points = list(grid_points([4, 8], may_offload=True))
    assert wanted_points(points, []) == points
    assert wanted_points(points, ["offloaded"]) == points[-4:]
    padded, *others = wanted_points(points, ["padded, 8 rows, no layer recomputes", "head"])
    assert padded.name == "padded, 8 rows, no layer recomputes" and others[-1] == points[-1]
    with pytest.raises(
        UserError, match=r"^--points: heads or tails is in no name of a point; they are: packed, 4 rows"
    ):
        wanted_points(points, ["heads", "tails"])


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


@pytest.mark.parametrize(
    ("head", "rows", "is_moved", "gib", "tokens_per_second"),
    [("auto", 4, True, 6.69, 11_029), (False, 2, False, 6.72, 10_299)],
)
def test_what_is_planned_under_the_smallest_cap(
    head: bool | str, rows: int, is_moved: bool, gib: float, tokens_per_second: float
) -> None:
    """The numbers of docs/benchmarks.md: with the head in main memory too, larger micro-batches fit."""
    files = {"model_name_or_path": "m", "train_file": "f", "eval_file": "e", "output_dir": "o"}
    case, sizes = auto_case(8, "llama3 8b", 139.8, quick=False), sizes_of("llama3 8b")
    around = Surroundings(
        shape=read_shape(sizes),
        model_config=sizes,
        setting=Setting("unsloth", "bfloat16", "bfloat16", supports_varlen=True),
        card=GPUS["h200"],
        room=room_on(8 * GIB),
        device="test card",
        size_of=lambda config: DataSize(90 if config.training.packing else 512, 330, 2048, 2048),
    )
    choice = settle(settle_batches(load_config({**case.settings, **files, "offload_head": head})), around).choice
    assert choice is not None and choice.chosen.time is not None
    work, memory, time = choice.chosen.workload, choice.chosen.memory, choice.chosen.time
    assert (work.rows, work.offloads_embedding, work.offloads_head) == (rows, True, is_moved)
    assert memory.reserved / GIB == pytest.approx(gib, abs=0.005)
    assert time.tokens_per_second == pytest.approx(tokens_per_second, abs=0.5)


def test_the_best_is_the_fastest_that_fits() -> None:
    """CUDA's own 0.55 GiB count: 7.5 GiB reserved do not fit 8."""
    grid = [line("slow", 100, 4.0), line("fast", 300, 7.5), line("middle", 200, 7.4), line("none", None)]
    assert best_of(grid, 8).case.name == "middle"
    assert best_of(grid, 12).case.name == "fast"
    assert best_of(grid, 2) is None
    untimed = line("untimed", 1)
    untimed = replace(untimed, summary={**untimed.summary, "median_tokens_per_second": None})
    assert best_of([untimed, *grid], 12).case.name == "fast" and best_of([untimed], 12) is None
    auto = line("auto", None)
    assert "| none fits |" in render_compared([Compared(2, auto, 0, None)])
    assert "| not run |" in render_compared([Compared(2, auto, 0, None, is_grid_whole=False)])


def test_half_of_the_layers_is_half_of_the_models() -> None:
    skipped = {point.settings(28).get("checkpoint_skip_layers") for point in grid_points([1], may_offload=False)}
    assert skipped == {None, 14}


def test_that_nothing_fits_is_no_lack_of_memory() -> None:
    """It was said before: a run that ends so all the same is counted apart, and one that comes through is a result."""
    auto = {
        "chosen": {"per_device_train_batch_size": 1}, "fits": False, "room_bytes": 7.0 * GIB,
        "predicted": {"peak_reserved_bytes": 7.25 * GIB},
    }  # fmt: skip
    ended = {"status": "out of memory", "manifest": {"auto": auto}}
    assert count_out_of_memory([ended]) == 0
    case = line("a", 1.0).case
    small = Compared(8, Line(case, ended), 0, None)
    ran = Compared(9, line("a", 100.0, 7.0, manifest={"auto": auto}), 0, None)
    assert render_compared([small, ran]).splitlines()[2:] == [
        "| 8 | nothing is predicted to fit: the least takes 7.25 of 7.00 GiB | - | - | - | none fits | - | - | - | 0 |",
        "| 9 | per_device_train_batch_size=1 (nothing is predicted to fit: the least takes 7.25 of 7.00 GiB, and it "
        + "ran) | 100 | 90 | 7.00 | none fits | - | - | - | 0 |",
        "",
        "No ratio; 0 runs of auto out of memory. "
        "Under 2 caps nothing was predicted to fit, and that was said beforehand.",
    ]


def test_the_table() -> None:
    chosen = {"auto": {"chosen": {"per_device_train_batch_size": 4, "packing": True}}}
    good = Compared(8, line("a", 194.0, 7.0, manifest=chosen), 0, line("b", 200.0, 7.0))
    bad = Compared(12, line("c", None), count_out_of_memory([{"status": "out of memory"}, {"status": "done"}]), None)
    assert good.ratio == pytest.approx(0.97) and bad.ratio is None
    assert render_compared([good, bad]).splitlines()[2:] == [
        "| 8 | per_device_train_batch_size=4 packing=true | 194 | 175 | 7.00 | b | 200 | 180 | 0.970 | 0 |",
        "| 12 | out of memory | - | - | - | none fits | - | - | - | 1 |",
        "",
        "Worst ratio 0.970; 1 runs of auto out of memory.",
    ]
