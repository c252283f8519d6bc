"""Suite `memory`: every line is a config, cards are as large as they are called, and the longest row just fits."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.benchmark import memory_suite
from component.pipeline.benchmark.files import Files
from component.pipeline.benchmark.memory_cases import CARDS, MODES, SHAPES, build_case, context_settings, settings_of
from component.pipeline.benchmark.memory_plans import STEP, last_that, longest_row, plan_peak, plan_workload
from component.pipeline.benchmark.memory_suite import Peak, panels, plan_contexts
from component.pipeline.benchmark.results import DONE, OUT_OF_MEMORY
from component.pipeline.benchmark.table import Line
from component.pipeline.plan_run import plan_config
from component.planning.gpus import GPUS
from component.planning.known_shapes import KNOWN_CONFIGS
from component.planning.memory import plan_memory
from component.planning.plan import judge
from component.runtime.environment import REPOSITORY


@pytest.mark.parametrize(("true_up_to", "most"), [(0, 9), (1, 9), (5, 9), (8, 9), (9, 9)])
def test_the_last_that_holds(true_up_to: int, most: int) -> None:
    assert last_that(lambda number: number <= true_up_to, most) == true_up_to


def test_the_longest_row_fits_and_a_longer_one_does_not() -> None:
    settings = settings_of(SHAPES["8B"], "qlora", STEP)
    tokens = longest_row(SHAPES["8B"], settings, "4090")
    workload = plan_workload(SHAPES["8B"], settings)
    verdicts = [
        judge(plan_memory(replace(workload, row_tokens=size)), GPUS["4090"]) for size in (tokens, tokens + STEP)
    ]
    assert verdicts[0] == "fits" != verdicts[1] and tokens % STEP == 0


@pytest.mark.parametrize(("size", "card"), [("8B", 24), ("70B", 48), ("1B", 24)])
def test_the_longest_row_is_that_of_the_bases_that_a_user_merges(tmp_path: Path, size: str, card: int) -> None:
    """As script/plan.py reads them: a row that the suite says fits does, and the next one does not.

    Of a model without a limit of positions, as the suite's checkpoints have none that matters.
    """
    tokens, name = plan_contexts(SHAPES[size])[card], CARDS[card][0]
    bases = [str(REPOSITORY / "train_args/base" / base) for base in ("sft.json", "qlora.json", "long_context.json")]
    places = {"model_name_or_path": str(tmp_path), "train_file": "rows.jsonl", "output_dir": "run"}
    (tmp_path / "run.json").write_text(json.dumps({"base": bases, **places}), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(dict(KNOWN_CONFIGS[SHAPES[size]])), encoding="utf-8")
    offloaded = [] if size == "1B" else ["offload_embedding=true", "offload_head=true"]
    verdicts = []
    for length in (tokens, tokens + STEP):
        config = load_config(tmp_path / "run.json", [f"max_seq_length={length}", *offloaded])
        verdicts.append(judge(plan_config(config, name).plan.memory, GPUS[name]))
    assert tokens > 0 and verdicts[0] == "fits" != verdicts[1]


def test_cards_have_the_memory_of_their_names() -> None:
    assert {name: GPUS[card].memory_bytes / 2**30 for name, (card, _) in CARDS.items()} == {
        name: size for name, (_, size) in CARDS.items()
    }


def test_quantized_takes_less_than_16_bit_and_that_less_than_full() -> None:
    for model in SHAPES.values():
        quantized, lora, full = (plan_peak(model, settings_of(model, mode, 1024)).reserved for mode in MODES)
        assert quantized < lora < full


def test_what_has_no_room_is_planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = build_case("70B", SHAPES["70B"], settings_of(SHAPES["70B"], "qlora", 1024))
    planned = plan_peak(case.model, case.settings)
    monkeypatch.setattr(memory_suite, "own_gpu", lambda: None)
    assert memory_suite.why_not_measured(Files(tmp_path), case, planned) == "there is no NVIDIA GPU"
    monkeypatch.setattr(memory_suite, "own_gpu", lambda: GPUS["a100-80"])
    reason = memory_suite.why_not_measured(Files(tmp_path), case, planned)
    # QLoRA would fit; the 16-bit weights that its checkpoint is made of do not.
    assert reason == "needs 131 GiB, and the card has 80"


def test_the_8b_checkpoint_is_that_of_the_other_suites(tmp_path: Path) -> None:
    assert Files(tmp_path).checkpoint_name(SHAPES["8B"]) == Files(tmp_path).checkpoint_name("llama3 8b") == "llama3-8b"


def test_captions_say_what_was_run() -> None:
    assert "1024 tokens" in memory_suite.caption(2) and "QLoRA and LoRA through Unsloth" in memory_suite.caption(2)
    quick = memory_suite.caption(3, quick=True)
    assert quick.startswith("One row of 64 tokens a micro-batch, 3 of them a step, on the CPU without Unsloth, with ")
    assert not any(name in quick for name in ("QLoRA", "minimal_memory", "1024", "planned"))


def test_bars_stand_out_only_where_their_own_mode_was_measured() -> None:
    case = build_case("8B", SHAPES["8B"], settings_of(SHAPES["8B"], "qlora", 1024))
    planned = plan_peak(case.model, case.settings)
    done = Line(case, {"status": DONE, "peak_reserved_bytes": 7 * 2**30})
    too_large = Line(case, {"status": OUT_OF_MEMORY, "peak_reserved_bytes": 70 * 2**30})
    no_peak = Line(case, {"status": DONE})
    measured = {("1B", "qlora"): done, ("8B", "qlora"): too_large, ("8B", "lora"): done, ("3B", "full"): no_peak}
    peaks = [Peak(size, mode, planned, measured.get((size, mode))) for size in ("1B", "3B", "8B") for mode in MODES]
    shown = dict(zip(MODES, panels(peaks, {"8B": dict.fromkeys(CARDS, 1024)}), strict=False))
    assert {mode: set(bars.ours) for mode, bars in shown.items()} == {"qlora": {"1B"}, "lora": {"8B"}, "full": set()}
    gib = planned.reserved / 2**30
    assert shown["qlora"].values == {"1B": 7, "3B": gib, "8B": gib}


def test_plans_need_neither_a_gpu_nor_a_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that they come while another suite is at work there; nothing is told of a GPU."""
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    parser = argparse.ArgumentParser()
    memory_suite.add_options(parser)
    arguments = ["--shapes", "1B", "--modes", "qlora", "--output", str(tmp_path / "out")]
    arguments += ["--scratch", str(tmp_path / "files")]
    memory_suite.run_suite(parser.parse_args(arguments))
    assert "| 1B | QLoRA | planned | planned | " in capsys.readouterr().out.splitlines()[2]
    assert not (tmp_path / "files").exists()
    with pytest.raises(UserError, match=r"--model: NousResearch/Meta-Llama-3-8B-Instruct has .* no NVIDIA GPU"):
        memory_suite.run_suite(parser.parse_args([*arguments, "--measure_context", "24"]))


def test_rows_are_no_longer_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest rows that 141 GB have room for would take an hour; two steps of one row each are enough."""
    measured = []
    monkeypatch.setattr(memory_suite, "plan_contexts", lambda _model: {24: 4096, 141: 2**20})

    class Suite:
        def measure(self, cases: list) -> list:
            measured.extend(cases)
            return []

    memory_suite.measure_contexts(Suite(), [24, 141], 2**17)
    assert [case.name for case in measured] == ["8B, QLoRA, 4,096 tokens, 24 GB", "8B, QLoRA, 131,072 tokens, 141 GB"]
    assert measured[1].settings["max_seq_length"] == measured[1].rows.max_tokens == 2**17
    assert measured[1].settings == {**context_settings(SHAPES["8B"], 2**17), "max_memory_gib": CARDS[141][1]}
    assert measured[1].settings["max_steps"] == 2
