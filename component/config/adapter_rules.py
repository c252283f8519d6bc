"""Rules over adapters: starts that a mode or task cannot have, and layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from component.config.errors import Problem
from component.config.keys import ADAPTER_MODES
from component.config.legacy import SWITCHES
from component.config.merged import Merged, Rule
from component.config.nodes import excerpt

#: Values of init_lora_weights that leave the base as it is.
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
#: Those that move a part of the base's weights into the adapter, and so change the base in memory.
MOVING_STARTS = re.compile(r"pissa|pissa_niter_[0-9]+|olora")
#: Values that PEFT has and that cannot be used -> why.
UNUSABLE_STARTS = {
    "loftq": "it quantizes 16-bit weights itself, in a simulation that saves no memory",
    "eva": "it needs a pass over the data before training",
    "corda": "it needs a pass over the data before training",
    "lora_ga": "it needs gradients from before training",
}
#: Tasks whose reference model is the base with the adapter switched off.
TASKS_WITH_REFERENCE = ("dpo", "kto", "grpo")

#: No model comes near to so many layers; a range is written out, so that it must have an end.
MAX_LAYERS = 10_000

_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def moves_weights(start: bool | str) -> bool:
    """Whether a value of init_lora_weights changes the base."""
    return isinstance(start, str) and MOVING_STARTS.fullmatch(start) is not None


def layer_numbers(entries: Sequence[int | str]) -> tuple[int, ...]:
    """The layers that `layers_to_transform` names, sorted; `3`, `"3"` and `"0-7"`, both ends included.

    Raises:
        ValueError: naming an entry that is neither a number nor a range below MAX_LAYERS.
    """
    numbers: set[int] = set()
    for entry in entries:
        match = _RANGE.fullmatch(str(entry).strip())
        first, last = (0, -1) if match is None else (_layer(match[1]), _layer(match[2] or match[1]))
        if not first <= last < MAX_LAYERS:
            raise ValueError(str(entry))
        numbers |= set(range(first, last + 1))
    return tuple(sorted(numbers))


def _layer(digits: str) -> int:
    """Their number; MAX_LAYERS for all that are beyond it, of which Python reads no more than 4300 digits."""
    digits = digits.lstrip("0") or "0"
    return min(int(digits), MAX_LAYERS) if len(digits) <= len(str(MAX_LAYERS)) else MAX_LAYERS


def check_start(merged: Merged) -> Iterator[Problem]:
    """The adapter's start is one that PEFT has, and that mode and task allow."""
    start, mode, task = merged["init_lora_weights"], merged["train_mode"], merged["task_type"]
    key = "init_lora_weights"
    if mode not in ADAPTER_MODES or start in PLAIN_STARTS:
        if start == "orthogonal" and merged["lora_rank"] % 2:
            what = f"an orthogonal start needs an even rank, and lora_rank is {merged['lora_rank']}"
            yield merged.clash(key, "lora_rank", what, f"use lora_rank: {merged['lora_rank'] + 1}")
        return
    names = "true, false, gaussian, orthogonal, pissa, pissa_niter_16, olora or mica"
    if start in UNUSABLE_STARTS:
        yield Problem(merged.places[key], key, f"{start} is not available: {UNUSABLE_STARTS[start]}", f"use {names}")
    elif start != "mica" and not moves_weights(start):
        yield Problem(merged.places[key], key, f'there is no "{start}"', f"use {names}")
    elif mode == "qlora":
        what = f"{start} starts from 16-bit weights, and those of train_mode qlora are quantized"
        yield merged.clash(key, "train_mode", what, "use train_mode: lora, or init_lora_weights: gaussian")
    elif moves_weights(start) and task in TASKS_WITH_REFERENCE:
        what = f"{start} changes the base, which is the reference of {task} with the adapter off"
        yield merged.clash(key, "task_type", what, "use init_lora_weights: true")
    elif merged["use_dora"]:
        what = f"{start} and use_dora both change what the adapter starts from"
        yield merged.clash(key, "use_dora", what, "keep one of them")


def check_bias(merged: Merged) -> Iterator[Problem]:
    """PEFT's bias of an adapter goes with the plain start and without DoRA."""
    if not merged["lora_bias"] or merged["train_mode"] not in ADAPTER_MODES:
        return
    start = merged["init_lora_weights"]
    if start not in (True, False):
        what = f"lora_bias goes with init_lora_weights: true alone, not {start}"
        yield merged.clash("lora_bias", "init_lora_weights", what, "drop one of them")
    if merged["use_dora"]:
        yield merged.clash("lora_bias", "use_dora", "DoRA has no bias of its own", "drop one of them")


def check_layers(merged: Merged) -> Iterator[Problem]:
    """Layers are numbers or ranges."""
    key = "layers_to_transform"
    try:
        layer_numbers(merged[key])
    except ValueError as error:
        fix = 'write numbers and ranges such as [0, "4-7"]'
        what = f'"{excerpt(str(error))}" is neither a layer nor a range of layers below {MAX_LAYERS:,}'
        yield Problem(merged.places[key], key, what, fix)


def check_rates(merged: Merged) -> Iterator[Problem]:
    """A rate of its own is for something that is trained, by an optimizer that has groups."""
    for key in ("loraplus_lr_ratio", "embedding_learning_rate"):
        if merged[key] is None or (key == "loraplus_lr_ratio" and merged["train_mode"] not in ADAPTER_MODES):
            continue
        optimizer = merged["optim"]
        if "layerwise" in optimizer or "lomo" in optimizer:
            what = f"optim {optimizer} has one learning rate for all"
            yield merged.clash(key, "optim", what, f"drop {key} or use optim: adamw_torch")
    rate, mode = merged["embedding_learning_rate"], merged["train_mode"]
    if rate is not None and mode in ADAPTER_MODES and not merged["modules_to_save"] and not merged["new_tokens"]:
        what = f"train_mode {mode} trains no embeddings"
        yield merged.clash(
            "embedding_learning_rate", "modules_to_save", what, "set modules_to_save: [embed_tokens, lm_head]"
        )


def check_quantized_mode(merged: Merged) -> Iterator[Problem]:
    """Only qlora quantizes; what asks for quantized weights elsewhere is not passed over."""
    mode = merged["train_mode"]
    if merged.is_set("quantization") and mode != "qlora":
        what = f"train_mode {mode} keeps weights of 16 bit or more, quantization {merged['quantization']} does not"
        yield merged.clash("quantization", "train_mode", what, "use train_mode: qlora, or drop quantization")


def check_switched_off(merged: Merged) -> Iterator[Problem]:
    """A quantization that a switch of other frameworks refuses is not done all the same."""
    for switch, place in merged.switched_off.items():
        key, value = SWITCHES[switch]
        if merged["train_mode"] == "qlora" and merged[key] == value:
            what = f"it is false, and train_mode: qlora loads the base in {value.removeprefix('int')} bit"
            yield Problem(place, switch, what, f"set train_mode: lora for a 16-bit base, or drop {switch}")


def check_rope(merged: Merged) -> Iterator[Problem]:
    """Rotary positions are stretched in a way that is known, by a number."""
    scaling = merged["rope_scaling"]
    if not scaling:
        return
    kind, factor = scaling.get("rope_type"), scaling.get("factor")
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if kind not in ("linear", "dynamic", "yarn") or not is_number or factor <= 1:
        fix = "write {rope_type: yarn, factor: 4.0}; rope_type is linear, dynamic or yarn, factor a number above 1"
        yield Problem(merged.places["rope_scaling"], "rope_scaling", f"got {scaling}", fix)


ADAPTER_RULES: tuple[Rule, ...] = (
    check_start,
    check_bias,
    check_layers,
    check_rates,
    check_quantized_mode,
    check_switched_off,
    check_rope,
)
