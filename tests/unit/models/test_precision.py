"""Which number formats a config gets on which hardware."""

from __future__ import annotations

import pytest

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.precision import resolve_precision

BF16, FP16, FP32 = "bfloat16", "float16", "float32"


@pytest.mark.parametrize(
    ("hardware", "keys", "load", "compute"),
    [
        ("ampere", {}, BF16, BF16),
        ("turing", {}, FP16, FP16),
        ("cpu", {}, FP32, FP32),
        ("fast cpu", {}, BF16, BF16),
        ("ampere", {"train_mode": "lora"}, BF16, BF16),
        ("ampere", {"train_mode": "full"}, FP32, BF16),
        ("turing", {"train_mode": "full"}, FP32, FP16),
        ("ampere", {"fp16": True}, FP16, FP16),
        ("ampere", {"fp16": True, "train_mode": "full"}, FP32, FP16),
        ("ampere", {"bf16": True}, BF16, BF16),
        ("ampere", {"bf16": False}, FP16, FP16),
        ("ampere", {"bf16": False, "fp16": False}, FP32, FP32),
        ("ampere", {"dtype": FP32}, FP32, BF16),
        ("ampere", {"dtype": FP16}, FP16, FP16),
        ("ampere", {"dtype": BF16, "train_mode": "full"}, BF16, BF16),
        ("ampere", {"dtype": FP16, "bf16": False, "fp16": False}, FP16, FP32),
    ],
)
def test_table(hardware, keys, load, compute, machines) -> None:
    precision = resolve_precision(ModelSection(model_name_or_path="m", **keys), machines[hardware])
    assert (precision.load_dtype, precision.compute_dtype) == (load, compute)
    assert (precision.bf16, precision.fp16) == (compute == BF16, compute == FP16)
    assert precision.notices == ()


def test_fp16_on_a_cpu_becomes_float32_with_one_notice(machines) -> None:
    precision = resolve_precision(ModelSection(model_name_or_path="m", fp16=True), machines["fast cpu"])
    assert (precision.load_dtype, precision.compute_dtype, precision.fp16) == (FP32, FP32, False)
    assert precision.notices == ("fp16: true becomes float32 on a CPU",)


@pytest.mark.parametrize(
    ("hardware", "keys", "message"),
    [
        ("turing", {"bf16": True}, "bf16: test T4 has no fast bfloat16; use fp16: true"),
        ("cpu", {"bf16": True}, "bf16: test CPU has no fast bfloat16; drop bf16 (float32 is used then)"),
        ("turing", {"dtype": BF16}, "dtype: test T4 has no fast bfloat16; use dtype: auto"),
        (
            "ampere",
            {"dtype": FP16, "train_mode": "full"},
            "dtype: float16 weights cannot be trained in full, their gradients cannot be unscaled; "
            "use dtype: auto with fp16: true, which keeps float32 masters",
        ),
        (
            "ampere",
            {"dtype": FP16, "bf16": True},
            "dtype: float16 weights cannot train with bf16: true; use dtype: auto, or drop bf16",
        ),
    ],
)
def test_impossible_formats_are_refused_with_the_fix(hardware, keys, message, machines) -> None:
    with pytest.raises(UserError) as caught:
        resolve_precision(ModelSection(model_name_or_path="m", **keys), machines[hardware])
    assert caught.value.messages == (message,)
