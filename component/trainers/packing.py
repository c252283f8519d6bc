"""Whether a run packs: what was asked, what the architecture allows, what the probe shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.models.packed_attention import probe_leak, why_not_packable

if TYPE_CHECKING:
    from component.data.rows import Prepared
    from component.models.loaded import LoadedModel

#: Samples whose tokens the probe is made of.
_NUM_PROBED = 64


@dataclass(frozen=True)
class PackingChoice:
    """What a run got of `packing`, and why.

    Attributes:
        asked: the value of `packing`.
        num_packs: rows that the samples were packed into, None without packing.
        fill: share of the tokens of these rows that is real.
        attention: what packed rows run on, and why that.
    """

    asked: bool | str
    got: bool
    reason: str
    num_packs: int | None = None
    fill: float | None = None
    attention: str | None = None
    attention_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    def notices(self) -> list[str]:
        """What the user is told: packing that was wished for and is off."""
        return [] if self.got or not self.asked else [f"packing: {self.asked} is off: {self.reason}"]


def check_packable(asked: bool | str, model_config: Mapping[str, Any]) -> None:
    """Refuse `packing: true` for an architecture that is known not to keep samples apart, before it is loaded.

    Raises:
        UserError: naming the architecture.
    """
    reason = why_not_packable(model_config)
    if asked is True and reason:
        raise UserError(_refusal(reason))


def choose_packing(
    asked: bool | str, model: LoadedModel, samples: Sequence[Prepared], *, compute_dtype: str
) -> PackingChoice:
    """Decide on packing for a loaded model.

    Args:
        asked: the value of `packing`; "auto" packs where samples stay apart.
        samples: the training data, whose tokens the probe takes.
        compute_dtype: number format of the computation, by torch's name.

    Raises:
        UserError: `packing: true`, and the samples of a row would see each other.
    """
    if asked is False:
        return PackingChoice(asked, False, "not asked for")
    reason = _why_not(model.model, islice(samples, _NUM_PROBED), compute_dtype)
    if reason is None:
        kernel = {
            "attention": model.got.get("packed_attention"),
            "attention_reason": model.got.get("packed_attention_reason"),
        }
        return PackingChoice(asked, True, "the probe shows that samples do not see each other", **kernel)
    if asked is True:
        raise UserError(_refusal(reason))
    return PackingChoice(asked, False, reason)


def _why_not(model: Any, samples: Iterable[Prepared], compute_dtype: str) -> str | None:
    known = why_not_packable(model.config.to_dict())
    if known:
        return known
    token_ids = {token for sample in samples for token in sample.input_ids}
    if len(token_ids) < 2:
        return "the data holds a single token, which shows nothing"
    probe = probe_leak(model, sorted(token_ids), compute_dtype=compute_dtype)
    if not probe.leaks:
        return None
    attention = getattr(model.config, "_attn_implementation", None)
    return (
        f"model family {model.config.model_type!r} with {attention} attention lets samples of a row see each other: "
        f"the logits of one move by {probe.change:.2g} when another is changed ({probe.tolerance:.2g} is rounding)"
    )


def _refusal(reason: str) -> str:
    return f"packing: true would mix samples: {reason}; use packing: auto or false"
