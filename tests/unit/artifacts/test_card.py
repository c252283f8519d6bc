"""The text of the cards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from component.artifacts.card import EndFacts, StartFacts, duration, end_card, gibibytes, short_count, start_card
from component.runtime.hardware import Hardware

GPU = Hardware("cuda", "NVIDIA H200", 150 * 2**30, 149 * 2**30, (9, 0), True, 1)
CPU = Hardware("cpu", "Some CPU", 16 * 2**30, 8 * 2**30, None, False, 1)
START = StartFacts(
    hardware=GPU,
    model="org/model",
    task="sft",
    mode="qlora",
    loader_asked="unsloth",
    loader_got="vanilla",
    loader_reason="it is not installed",
    attention="sdpa",
    dtype="bfloat16",
    num_trainable=41_900_000,
    num_parameters=8_072_000_000,
    data=("kept 9,812  truncated 140", "dropped 48 (31 empty answer, 17 bad JSON)"),
    num_steps=1200,
    first_step=0,
    global_batch_size=16,
    sample=(("<|user|>[b]2+2?[/b]\n<|assistant|>", False), ("4<|end|>", True)),
    sample_source="train.jsonl:1",
)
END = EndFacts(
    hardware=GPU,
    first_loss=2.5,
    last_loss=0.25,
    eval_loss=0.5,
    real_tokens_per_second=10626.4,
    padded_tokens_per_second=11000.0,
    mfu=0.4321,
    peak_allocated_bytes=38 * 2**30,
    peak_reserved_bytes=40 * 2**30,
    wall_seconds=245.2,
    why_not_faster=("31% of all tokens were padding: try packing=true (saves about 31% of the time)",),
    start_seconds={"imports": 12.25, "data": 1.5, "model": 9.0, "step": 8.0},
    last_step=1200,
    planned_steps=1200,
    model_step=1200,
    next_commands=("python script/chat.py --model_name_or_path output/sft/" + "x" * 90,),
)


def test_the_start_card_in_plain_text() -> None:
    assert start_card(START, color=False).splitlines() == [
        "GPU         NVIDIA H200, 149.0 GiB free of 150.0 GiB",
        "model       org/model",
        "training    sft, qlora",
        "loader      vanilla (asked for unsloth: it is not installed)",
        "attention   sdpa, bfloat16",
        "parameters  41.9 M trainable of 8.07 B (0.52%)",
        "data        kept 9,812  truncated 140",
        "            dropped 48 (31 empty answer, 17 bad JSON)",
        "steps       1,200, each of 16 rows",
        "",
        "first sample, train.jsonl:1 (⟦supervised⟧):",
        "<|user|>[b]2+2?[/b]",
        "<|assistant|>⟦4<|end|>⟧",
    ]


def test_a_resumed_run_on_the_loader_that_was_asked_for() -> None:
    facts = replace(
        START,
        hardware=CPU,
        loader_got="unsloth",
        first_step=500,
        notices=("fp16: becomes float32",),
        sample=(),
        hints=("beta: 5",),
    )
    lines = start_card(facts, color=False).splitlines()
    assert lines[0] == "CPU         Some CPU, 8.0 GiB free of 16.0 GiB"
    assert lines[3] == "loader      unsloth"
    assert lines[-3:] == [
        "steps       1,200, each of 16 rows, going on after step 500",
        "notices     fp16: becomes float32",
        "hints       beta: 5",
    ]


def test_colours_mark_what_is_supervised_on_a_terminal() -> None:
    text = start_card(START, color=True)
    assert "\x1b[32m4<|end|>\x1b[0m" in text
    assert "⟦" not in text


def test_data_cannot_steer_the_terminal() -> None:
    text = start_card(replace(START, sample=(("a\x1b[2Jb\x07", True),)), color=False)
    assert "\x1b" not in text and "\x07" not in text
    assert "⟦a\\x1b[2Jb\\x07⟧" in text


def test_a_long_piece_loses_its_middle() -> None:
    text = start_card(replace(START, sample=(("a" * 300 + "b" * 300, False), ("end", True))), color=False, width=1000)
    assert text.splitlines()[-1] == "a" * 200 + " ... 200 more characters ... " + "b" * 200 + "⟦end⟧"


def test_the_end_card_in_plain_text() -> None:
    assert end_card(END, color=False).splitlines() == [
        "loss         2.5000 -> 0.2500 nats per supervised token",
        "eval loss    0.5000",
        "tokens/s     10,626 real, 11,000 with padding",
        "MFU          43.2%",
        "peak memory  38.0 GiB allocated, 40.0 GiB reserved",
        "first step   after 30.8 s: imports 12.2 s, data 1.5 s, model 9.0 s, step 8.0 s",
        "wall time    4 min 05 s",
        "",
        "why not faster:",
        "  31% of all tokens were padding: try packing=true (saves about 31% of the time)",
        "",
        "next:",
        "  python script/chat.py --model_name_or_path output/sft/" + "x" * 90,
    ]


def test_a_run_that_did_not_end_with_its_last_step() -> None:
    facts = replace(END, last_step=90, model_step=60, eval_perplexity=1234.567)
    lines = end_card(facts, color=False).splitlines()
    assert lines[1] == "eval loss    0.5000, perplexity 1,234.57"
    assert lines[2] == (
        "steps        stopped early after 90 of 1,200; saved, and shown here, is the best: that of step 60"
    )
    assert "saved" not in end_card(replace(facts, model_step=90), color=False)
    assert "early" not in end_card(replace(facts, planned_steps=90), color=False)
    assert "perplexity 2.20e+304" in end_card(replace(facts, eval_perplexity=2.2e304), color=False)
    assert "perplexity inf" in end_card(replace(facts, eval_perplexity=float("inf")), color=False)


@pytest.mark.parametrize(
    ("hardware", "text"),
    [(replace(GPU, name="NVIDIA X9"), "unknown GPU (NVIDIA X9)"), (CPU, "not defined without a GPU")],
)
def test_utilization_is_not_guessed(hardware: Hardware, text: str) -> None:
    assert f"MFU          {text}\n" in end_card(replace(END, hardware=hardware, mfu=None), color=False)


def test_what_was_not_measured_is_unknown() -> None:
    facts = replace(END, first_loss=None, last_loss=None, eval_loss=None, real_tokens_per_second=None,
                    start_seconds={}, why_not_faster=(),
                    padded_tokens_per_second=None, peak_allocated_bytes=None, next_commands=())  # fmt: skip
    assert end_card(facts, color=False).splitlines() == [
        "loss       unknown -> unknown nats per supervised token",
        "tokens/s   unknown real, unknown with padding",
        "MFU        43.2%",
        "wall time  4 min 05 s",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 K"), (41_943_040, "41.9 M"), (999_949, "1.00 M"), (8_030_261_248, "8.03 B"),
     (70_553_706_496, "70.6 B"), (671_000_000_000, "671 B")],
)  # fmt: skip
def test_counts(number: int, text: str) -> None:
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (245.2, "4 min 05 s"), (3599.6, "1 h 00 min"),
     (90_000, "25 h 00 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bytes() -> None:
    assert gibibytes(3 * 2**29) == "1.5 GiB"
