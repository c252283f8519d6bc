"""A plan in words and numbers for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from component.artifacts.plan_card import gib
from component.artifacts.plan_facts import PlanFacts
from component.config.load import Config
from component.pipeline.plan_run import PlannedRun, compare_cards
from component.planning.plan import SPEED_RULE, VERDICT_RULE, Plan
from component.planning.served import explain_served
from component.planning.weights import num_trained
from component.planning.workload import Workload

#: What becomes of a layer's activations, in words.
CHECKPOINTING = {
    "none": "none, all activations are kept",
    "recompute": "recompute",
    "offload": "recompute, from layer inputs in main memory",
}


def plan_facts(planned: PlannedRun, config: Config) -> PlanFacts:
    """What people are shown of a plan."""
    made = planned.plan
    work = made.workload
    card = made.gpu
    name = config.model.model_name_or_path
    title = f"{name}: {work.task}, {config.model.train_mode}, {work.rows} x {work.row_tokens}"
    return PlanFacts(
        title=f"{title}, {planned.setting.loader}",
        heading=f"plan for {planned.place}, in {planned.setting.compute_dtype}: predicted, nothing was loaded",
        settings=(
            ("model", f"{name}, {work.shape.num_parameters / 1e9:.2f} billion parameters"),
            ("trained", f"{num_trained(work):,} parameters ({config.model.train_mode})"),
            ("loader", f"{planned.setting.loader} ({planned.loader_reason})"),
            ("precision", f"weights {planned.setting.load_dtype}, computation {planned.setting.compute_dtype}"),
            ("micro-batch", _micro_batch(made)),
            ("checkpointing", _checkpointing(work)),
        ),
        parts=tuple((part.name, part.num_bytes) for part in made.memory.parts),
        moment=made.memory.moment,
        allocated_bytes=made.memory.allocated,
        reserved_bytes=made.memory.reserved,
        memory_bytes=card.memory_bytes if card else None,
        summary=tuple(_summary(planned)),
        cards=compare_cards(made, config),
        cards_title=_cards_title(config, planned.auto),
        legend=(VERDICT_RULE, SPEED_RULE),
    )


def _cards_title(config: Config, auto: Mapping[str, Any]) -> str:
    """Whose choice other cards are held against, where there was one, and of how much of their memory."""
    cap = config.training.max_memory_gib
    fit = f"overrides that fit {'them' if cap is None else f'max_memory_gib: {cap:g} of their memory'}"
    if "device" not in auto:
        return f"other cards, and {fit}"
    whose = "before" if auto["origin"] == "as before" else f"for {auto['device']}"
    return f"other cards with what auto chose {whose}, and {fit}"


def _micro_batch(made: Plan) -> str:
    work = made.workload
    number = "1 sequence" if work.sequences == 1 else f"{work.sequences} sequences"
    if work.sequences == 2 * work.rows:
        number += f" ({work.rows} with two each)"
    number_a_step = "1 micro-batch" if made.micro_batches == 1 else f"{made.micro_batches} micro-batches"
    return f"{number} of {work.row_tokens:,} tokens, {number_a_step} a step"


def _checkpointing(work: Workload) -> str:
    skipped = (
        f", {work.skipped_layers} of {work.shape.num_layers} layers keep their activations"
        if work.skipped_layers
        else ""
    )
    return f"{CHECKPOINTING[work.checkpointing]}{skipped}"


def _summary(planned: PlannedRun) -> Iterator[tuple[str, str]]:
    made, auto = planned.plan, planned.auto
    if made.gpu is None:
        yield "card", "none here; name one with script/plan.py --gpu"
    else:
        is_beyond_auto = made.verdict == "fits" and auto.get("fits") is False
        but = f", but not the {gib(auto['room_bytes'])} GiB that auto may take" if is_beyond_auto else ""
        yield "card", f"{made.gpu.title}, {made.gpu.memory_bytes / 2**30:.1f} GiB: {made.verdict}{but}"
        yield "served by the installed torch", explain_served(made.gpu.capability)
    if made.memory.paged:
        yield "paged optimizer states", f"{gib(made.memory.paged)} GiB, which can leave the device and are not counted"
    if made.time is not None:
        yield "step", f"{made.time.seconds:.2f} s for {made.time.tokens:,} tokens"
        yield "speed", f"{made.time.tokens_per_second:,.0f} tokens/s, padding included"
        millions = 1e6 / made.time.tokens_per_second / 3600
        yield "a million tokens", f"{millions:.3f} hours"
    elif made.gpu is not None:
        yield "speed", "not predicted for this card or task"
    if made.hours is not None:
        yield "the run", f"{made.num_steps:,} steps, {made.hours:.2f} hours"
