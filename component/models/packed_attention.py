"""Packed rows: what they run on, and whether a model keeps their samples apart, known from its config or probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from component.models.block_compile import uncompiled

if TYPE_CHECKING:
    from torch import Tensor

    from component.runtime.hardware import Hardware

#: What packed rows run on, by attention implementation. None of the slow ones is known to repay packing on a GPU.
FLASH_ATTN = "flash-attn's variable-length kernel"
VARLEN = "torch's variable-length kernel"
XFORMERS = "xformers' block-diagonal kernel"
FLEX = "flex_attention with a document mask"
DENSE_SDPA = "SDPA with a dense mask"
DENSE_EAGER = "eager attention with a dense mask"
SAMPLE_SDPA = "SDPA, a call for each sample"
SLOW = (DENSE_SDPA, DENSE_EAGER, SAMPLE_SDPA)
PACKED_ROWS: Mapping[str, str] = {
    "flash_attention_2": FLASH_ATTN,
    "varlen": VARLEN,
    "flex_attention": FLEX,
    "sdpa": DENSE_SDPA,
    "eager": DENSE_EAGER,
}

#: Families (`model_type` of config.json) that take no positions for each sample -> why.
_ALIBI = "ALiBi takes positions from the row, not from the sample"
_RECURRENT = "its recurrent state runs on from sample to sample"
UNPACKABLE_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("bloom", "mpt"), _ALIBI),
    **dict.fromkeys(
        (
            "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe",
            "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text",
            "qwen3_5_text", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2",
        ),
        _RECURRENT,
    ),
}  # fmt: skip

#: Tokens of each of the probe's two samples.
PROBE_LENGTH = 16
#: A logit may move by this many roundings of the largest one: mixtures of experts add up in an order of their own.
NUM_ROUNDINGS = 8
#: It may also not move by more than this share of what it moves by where the samples see each other on purpose.
MAX_SHARE = 0.05


def why_not_packable(model_config: Mapping[str, Any]) -> str | None:
    """Why an architecture cannot keep packed samples apart, from its config.json; None where nothing is known."""
    family = model_config.get("model_type")
    if family == "falcon" and model_config.get("alibi"):
        return f"model family 'falcon' with alibi: {_ALIBI}"
    reason = UNPACKABLE_FAMILIES.get(str(family))
    return f"model family {family!r}: {reason}" if reason else None


@dataclass(frozen=True)
class PackedAttention:
    """What packed rows run on, and why."""

    got: str
    reason: str

    def describe(self) -> dict[str, str]:
        """Its part of the `got` of a LoadedModel."""
        return {"packed_attention": self.got, "packed_attention_reason": self.reason}

    def notices(self, hardware: Hardware) -> list[str]:
        """What the user is told: on a GPU there are faster ways than the slow ones."""
        if hardware.kind != "cuda" or self.got not in SLOW:
            return []
        return [f"packing: packed rows run on {self.got}, slower than a variable-length kernel: {self.reason}"]


@dataclass(frozen=True)
class LeakProbe:
    """What changing the first sample of a row did to the logits of the second.

    Attributes:
        change: largest change where the row is packed; 0 on a path that keeps samples apart, short of experts.
        joined_change: the same where both are one sample, so that the second sees the first.
        tolerance: what rounding may change.
    """

    change: float
    joined_change: float
    tolerance: float

    @property
    def leaks(self) -> bool:
        """Whether the second sample sees the first; NaN counts as a leak."""
        is_unchanged = self.change == 0 or (
            self.change <= self.tolerance and self.change <= MAX_SHARE * self.joined_change
        )
        return not is_unchanged


def probe_leak(model: Any, token_ids: Sequence[int], *, compute_dtype: str) -> LeakProbe:
    """Pack two short samples, change the first and look at the logits of the second.

    The call is that of training: the model's mode as it is, autocast, no mask, no cache. Random numbers are drawn alike
    in each call, and the global state of the generators is left as it was.

    Args:
        model: in training mode, on its device.
        token_ids: some ids that the model knows, at least two different ones.
        compute_dtype: number format of the computation, by torch's name.
    """
    import torch

    from component.models.host_weights import device_of

    device = device_of(model)
    known = sorted(set(token_ids))
    numbers = range(PROBE_LENGTH)
    first, changed, second = ([known[(3 * n + shift) % len(known)] for n in numbers] for shift in (0, 1, 2))
    restarting, joined = [*numbers, *numbers], list(range(2 * PROBE_LENGTH))
    dtype = getattr(torch, compute_dtype)

    def logits(start: list[int], positions: list[int]) -> Tensor:
        """Logits of the second sample's tokens after a first one, (tokens, vocabulary)."""
        torch.manual_seed(0)
        output = model(
            input_ids=torch.tensor([start + second], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
        )
        return output.logits[0, PROBE_LENGTH:].float()

    devices = [device] if device.type == "cuda" else []
    with (
        uncompiled(),
        torch.random.fork_rng(devices),
        torch.no_grad(),
        torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32),
    ):
        reference = logits(first, restarting)
        change = (logits(changed, restarting) - reference).abs().max().item()
        joined_change = (logits(changed, joined) - logits(first, joined)).abs().max().item()
    tolerance = NUM_ROUNDINGS * torch.finfo(dtype).eps * reference.abs().max().item()
    return LeakProbe(change, joined_change, tolerance)
