"""Rules over keys that trade memory for speed."""

from __future__ import annotations

from collections.abc import Iterator

from component.config.errors import Problem
from component.config.merged import Merged, Rule


def check_skipped_layers(merged: Merged) -> Iterator[Problem]:
    """Only layers that would recompute can be kept from it."""
    if merged["checkpoint_skip_layers"] and merged["gradient_checkpointing"] is False:
        what = "checkpoint_skip_layers without gradient_checkpointing, and no layer recomputes then"
        fix = "drop it, or set gradient_checkpointing: true"
        yield merged.clash("checkpoint_skip_layers", "gradient_checkpointing", what, fix)


def check_dequantized_base(merged: Merged) -> Iterator[Problem]:
    """Only 4-bit weights are dequantized once; LLM.int8() computes with its 8-bit ones."""
    if merged["dequantize_base"] is True and merged["quantization"] == "int8":
        what = "dequantize_base is for 4-bit weights, and quantization is int8"
        yield merged.clash("dequantize_base", "quantization", what, "drop one of them")


MEMORY_RULES: tuple[Rule, ...] = (check_skipped_layers, check_dequantized_base)
