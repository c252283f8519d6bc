"""Exact lines for given facts: ranked, at most three, silent where nothing is worth saying."""

from __future__ import annotations

from dataclasses import replace

import pytest

from component.planning.why_not_faster import Finding, SpeedFacts, why_not_faster

GIB = 2**30
NO_RECOMPUTATION = Finding(
    0.25, "activations were recomputed with room left", "gradient_checkpointing=false", extra_bytes=30 * GIB
)
DEQUANTIZED = Finding(0.1, "4-bit weights were restored each time", "dequantize_base=true", extra_bytes=9.5 * GIB)
RUN = SpeedFacts(
    on_gpu=True,
    padding_share=0.31,
    may_pack=True,
    may_group=True,
    data_wait_share=0.12,
    evaluation_share=0.2,
    num_evaluations=10,
    eval_steps=50,
    lost_kernels=("lora_dropout=0",),
    planned=(DEQUANTIZED, NO_RECOMPUTATION),
    room_bytes=60 * GIB,
)


def test_the_three_that_save_most() -> None:
    assert why_not_faster(RUN) == (
        "31% of all tokens were padding: try group_by_length=true or packing=true (saves at most 31% of the time)",
        "activations were recomputed with room left: try gradient_checkpointing=false (saves about 25% of the time)",
        "training waited for data 12% of the time: try dataloader_num_workers=2 (saves at most 12% of the time)",
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"padding_share": 0.31, "may_group": True},
         "31% of all tokens were padding: try group_by_length=true (saves at most 31% of the time)"),
        ({"padding_share": 0.31, "may_pack": True},
         "31% of all tokens were padding: try packing=true (saves at most 31% of the time)"),
        ({"data_wait_share": 0.5, "num_workers": 4},
         "training waited for data 50% of the time: try dataloader_num_workers=8 (saves at most 50% of the time)"),
        ({"evaluation_share": 0.2, "num_evaluations": 10, "eval_steps": 50},
         "10 evaluations took 20% of the time: try eval_steps=100 (saves about 10% of the time)"),
        ({"evaluation_share": 0.2, "num_evaluations": 3},
         "3 evaluations took 20% of the time: try a larger per_device_eval_batch_size"),
        ({"lost_kernels": ("lora_dropout=0", "use_dora=false")},
         "Unsloth's fused kernels for adapters were lost: try lora_dropout=0 use_dora=false"),
        ({"slow_attention": "packed rows ran on SDPA with a dense mask", "attention_fix": "attn_implementation=auto"},
         "packed rows ran on SDPA with a dense mask: try attn_implementation=auto"),
        ({"planned": (DEQUANTIZED,), "room_bytes": 10 * GIB},
         "4-bit weights were restored each time: try dequantize_base=true (saves about 10% of the time)"),
    ],
)  # fmt: skip
def test_each_finding(changes: dict, line: str) -> None:
    assert why_not_faster(SpeedFacts(on_gpu=True, **changes)) == (line,)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"padding_share": 0.049, "may_pack": True, "data_wait_share": 0.03},
        {"padding_share": 0.5},  # nothing cuts it
        {"evaluation_share": 0.5, "num_evaluations": 1},
        {"planned": (NO_RECOMPUTATION,), "room_bytes": 29 * GIB},
    ],
)
def test_silence(changes: dict) -> None:
    assert why_not_faster(SpeedFacts(on_gpu=True, **changes)) == ()


def test_what_is_told_fits_together() -> None:
    facts = SpeedFacts(on_gpu=True, planned=RUN.planned, room_bytes=35 * GIB)
    assert [line.partition(": try ")[2] for line in why_not_faster(facts)] == [
        "gradient_checkpointing=false (saves about 25% of the time)"
    ]


def test_without_a_gpu_only_data_and_padding_count() -> None:
    lines = why_not_faster(replace(RUN, on_gpu=False))
    assert [line.partition(":")[0] for line in lines] == [
        "31% of all tokens were padding",
        "training waited for data 12% of the time",
    ]
