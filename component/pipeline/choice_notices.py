"""Notices of what `auto` chose: one line each, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from component.config.batches import AUTO
from component.config.load import Config
from component.models.packed_attention import why_not_packable
from component.pipeline.saving_settings import fewest_savings, spell_overrides, spell_value
from component.planning.choice import MEMORY_MARGIN, Choice


def tell_defaults(config: Config) -> Iterator[str]:
    """What is taken because nothing was said, and matters to what is learned."""
    if "global_batch_size" not in config.places and config.values["per_device_train_batch_size"] == AUTO:
        yield (
            f"global_batch_size: {config.training.global_batch_size} rows a step, the default beside "
            "per_device_train_batch_size: auto, whatever the card; set it to learn from more or fewer rows a step"
        )


def tell_choice(
    config: Config,
    chosen: Mapping[str, Any],
    choice: Choice,
    origin: str,
    *,
    model_config: Mapping[str, Any],
    device: str,
) -> Iterator[str]:
    """What was chosen with what is predicted of it, and what follows.

    Args:
        config: before the choice.
        origin: of the choice, in words.
        device: that had the room, in words.
    """
    yield from _packing_notice(chosen, origin, model_config)
    yield from _skipping_notice(config, chosen)
    yield _say(chosen, choice, origin, device)
    if choice.fits and choice.chosen.time is None and origin != "as before":
        yield from _by_memory_alone(config, device)


def _packing_notice(chosen: Mapping[str, Any], origin: str, model_config: Mapping[str, Any]) -> Iterator[str]:
    if chosen.get("packing") is False:
        seen = "as before" if origin == "as before" else "no full rows are predicted to fit"
        reason = why_not_packable(model_config) or seen
        yield f"packing: auto is off: {reason}; a step learns from fewer samples than with packed rows"


def _skipping_notice(config: Config, chosen: Mapping[str, Any]) -> Iterator[str]:
    number = config.model.checkpoint_skip_layers
    if number and chosen.get("gradient_checkpointing") is False:
        yield f"checkpoint_skip_layers: {number} has no effect: gradient_checkpointing: auto recomputes no layer"


def _by_memory_alone(config: Config, device: str) -> Iterator[str]:
    """What the choice stands on where no time is predicted, the first key first."""
    ranked = (
        ("packed rows", config.values.get("packing") == AUTO),
        ("a base in 16 bit", config.values.get("dequantize_base") == AUTO),
        ("fewest layers recomputed", config.values.get("gradient_checkpointing") == AUTO),
        ("largest micro-batch", config.values.get("per_device_train_batch_size") == AUTO),
    )
    order = ", then ".join(what for what, is_open in ranked if is_open)
    if order:
        yield (
            f"auto: the speed of {config.model.task_type} on {device} is not known: chosen by memory alone: {order}; "
            "other settings may be faster; see auto.alternatives in run.json, and docs/config.md"
        )


def tell_savings(config: Config, choice: Choice, start: Mapping[str, Any]) -> Iterator[str]:
    """Where nothing fits, settings beyond those that are chosen with which it would.

    Args:
        start: adapter_config.json of the adapter that training goes on from.
    """
    saving = {} if choice.fits else fewest_savings(config, choice.chosen.workload, start, room=choice.room)
    if saving:
        yield f"auto: with {' '.join(spell_overrides(saving))}, which it does not choose here, it is predicted to fit"


def _say(chosen: Mapping[str, Any], choice: Choice, origin: str, device: str) -> str:
    found = choice.chosen
    time = f", {found.time.seconds:.2f} s a step" if found.time else ""
    room = f"{choice.room / 2**30:.2f}, the room on {device} less {MEMORY_MARGIN:.0%}"
    memory = f"{found.memory.reserved / 2**30:.2f} GiB of {room}"
    verdict = "predicted" if choice.fits else "nothing that may be chosen is predicted to fit; this takes least:"
    return f"auto: {spell_choice(chosen)} ({origin}); {verdict} {memory}{time}"


def spell_choice(values: Mapping[str, Any]) -> str:
    """Keys and values as a notice has them."""
    return ", ".join(f"{key}: {spell_value(value)}" for key, value in values.items())
