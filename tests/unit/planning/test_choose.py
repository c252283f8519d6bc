"""The chooser takes the fastest of what fits, and changes only what it is free to change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured import PACKED, UNSLOTH, VANILLA

from component.planning.choice import CONTEXT_BYTES, Freedom, Layout, room_on
from component.planning.choose import ALIKE, WORTH_MOVING, choose
from component.planning.gpus import GIB, GPUS
from component.planning.memory import plan_memory
from component.planning.step_time import plan_step_time
from component.planning.workload import Workload

H200, LAYERS = GPUS["h200"], UNSLOTH.shape.num_layers
WHOLE = 16


def layouts(base: Workload, *, packed: tuple[bool, ...] = (True,), sizes: tuple[int, ...] = (1, 2, 4, 8, 16)) -> list:
    """Micro-batches of a step of 16 rows, evaluated in batches as large; a pack holds six samples of 330 tokens."""
    found = []
    for is_packed in packed:
        for rows in sizes:
            work = replace(base, rows=rows, is_packed=is_packed, gradients_wait=rows < WHOLE, eval_rows=rows)
            timed = replace(work, **PACKED) if is_packed else replace(work, row_tokens=346)
            found.append(Layout(work, timed, WHOLE // rows, samples_share=6.0 if is_packed else 1.0))
    return found


def test_room() -> None:
    assert room_on(16 * GIB) == 16 * GIB * 0.95 - CONTEXT_BYTES
    assert room_on(16 * GIB, has_context=False) == 16 * GIB * 0.95


@pytest.mark.parametrize(
    ("memory_gib", "settings"),
    [
        (12, (True, 8, 2, True, 1, False)),
        (16, (True, 4, 4, True, 8, False)),
        (24, (True, 2, 8, False, 0, False)),
        (48, (True, 4, 4, False, 0, True)),
        (80, (True, 8, 2, False, 0, True)),
        (141, (True, 8, 2, False, 0, True)),
    ],
)
def test_8b_qlora_under_caps(memory_gib: int, settings: tuple[object, ...]) -> None:
    """Memory goes into less recomputation first, then into a dequantized base; more than 16k tokens gain nothing."""
    freedom = Freedom(dequantized=(False, True))
    choice = choose(layouts(UNSLOTH, packed=(True, False)), freedom, H200, room=room_on(memory_gib * GIB))
    assert tuple(choice.chosen.settings().values()) == (*settings, "paged_adamw_32bit", False, False)
    assert choice.fits and choice.chosen.memory == plan_memory(choice.chosen.workload)


@pytest.mark.parametrize("base", [UNSLOTH, VANILLA], ids=["unsloth", "vanilla"])
def test_more_memory_is_never_slower(base: Workload) -> None:
    before = None
    for memory_gib in range(8, 142, 3):
        choice = choose(layouts(base), Freedom(dequantized=(False, True)), H200, room=room_on(memory_gib * GIB))
        if not choice.fits:
            assert before is None, "what fitted less memory fits more"
            continue
        assert choice.chosen.workload.rows * choice.chosen.micro_batches == WHOLE
        seconds = choice.chosen.time.seconds
        assert before is None or seconds <= before * (1 + ALIKE)
        before = seconds
        assert all(item.memory.reserved <= choice.room for item in choice.alternatives)
        assert all(item.memory.reserved > choice.room for item in choice.rejected)
        assert all(item.time.seconds >= seconds / (1 + ALIKE) for item in choice.alternatives)
    assert before is not None


def test_best_of_all_combinations() -> None:
    """No other number of skipped layers, nor another micro-batch, is faster among what fits."""
    room = room_on(20 * GIB)
    choice = choose(layouts(UNSLOTH), Freedom(), H200, room=room)
    assert choice.chosen.workload.skipped_layers > 0
    for layout in layouts(UNSLOTH):
        for kept in range(LAYERS + 1):
            kind = {"checkpointing": "none"} if kept == LAYERS else {"skipped_layers": kept}
            if plan_memory(replace(layout.workload, **kind)).reserved > room:
                continue
            time = plan_step_time(replace(layout.timed, **kind), H200, micro_batches=layout.micro_batches)
            assert time.seconds >= choice.chosen.time.seconds / (1 + ALIKE)


def test_only_what_is_free_changes() -> None:
    given = layouts(UNSLOTH, sizes=(4,))
    fixed = choose(given, Freedom(chooses_recomputation=False), H200, room=room_on(141 * GIB))
    assert fixed.chosen.workload == given[0].workload
    all_or_none = choose(given, Freedom(skipped_layers=0), H200, room=room_on(24 * GIB))
    assert all_or_none.chosen.workload == given[0].workload  # without recomputation it needs 37 GiB
    some = choose(given, Freedom(skipped_layers=5), H200, room=room_on(24 * GIB))
    assert some.chosen.workload == replace(given[0].workload, skipped_layers=5)


def test_padded_rows_only_where_full_ones_do_not_fit() -> None:
    long = replace(UNSLOTH, row_tokens=65_536)
    given = [replace(item, samples_share=190.0) for item in layouts(long)]
    given += layouts(replace(UNSLOTH, row_tokens=512), packed=(False,))
    assert not choose(given, Freedom(), H200, room=room_on(9.5 * GIB)).chosen.workload.is_packed
    assert choose(given, Freedom(), H200, room=room_on(141 * GIB)).chosen.workload.is_packed


def test_nothing_fits() -> None:
    choice = choose(layouts(UNSLOTH), Freedom(), H200, room=4 * GIB)
    assert not choice.fits and choice.alternatives == ()
    least = min(plan_memory(layout.workload).reserved for layout in layouts(UNSLOTH))
    assert choice.chosen.memory.reserved == least and choice.chosen.workload.recomputed_layers == LAYERS
    assert all("GiB of 4.00" in item["rejected"] for item in choice.to_dict()["rejected"])


def test_without_a_known_speed() -> None:
    """No recomputation if that fits with any micro-batch, else all; then the largest micro-batch."""
    base = replace(VANILLA, load_bytes=4, compute_bytes=4)
    for memory_gib, rows, checkpointing in ((1000, 16, "none"), (60, 1, "none"), (20, 2, "recompute")):
        choice = choose(layouts(base), Freedom(skipped_layers=0), None, room=memory_gib * GIB)
        assert (choice.fits, choice.chosen.time) == (True, None)
        assert (choice.chosen.workload.rows, choice.chosen.workload.checkpointing) == (rows, checkpointing)


def test_evaluation_counts() -> None:
    """A batch of evaluation that does not fit rules settings out which would fit in training."""
    (layout,) = layouts(VANILLA, sizes=(1,))
    room = plan_memory(layout.workload).reserved * 1.01
    wide = replace(layout, workload=replace(layout.workload, eval_rows=32))
    assert choose([layout], Freedom(skipped_layers=0), H200, room=room).fits
    assert not choose([wide], Freedom(skipped_layers=0), H200, room=room).fits


def test_skipped_layers_between_all_and_none() -> None:
    """Memory and time of a number of skipped layers lie evenly between those of none and of all."""
    whole = replace(VANILLA, rows=2)
    none, some = replace(whole, checkpointing="none"), replace(whole, skipped_layers=LAYERS // 2)
    least, middle, most = (plan_memory(item).allocated for item in (whole, some, none))
    assert least < middle < most
    slow, between, fast = (plan_step_time(item, H200, micro_batches=1).compute for item in (whole, some, none))
    assert between == pytest.approx((slow + fast) / 2)
    assert plan_memory(replace(none, skipped_layers=3)) == plan_memory(none)


def test_a_dequantized_base() -> None:
    """16-bit weights in place of 4-bit ones, no workspace, less time; PEFT keeps what it keeps beside 4-bit layers."""
    four = replace(VANILLA, checkpointing="none")
    whole = replace(four, is_dequantized=True)
    parts, before = ({part.name: part.num_bytes for part in plan_memory(item).parts} for item in (whole, four))
    weights = four.shape.num_layers * four.shape.linear_per_layer * 2
    assert parts["16-bit weights"] - before["16-bit weights"] == weights
    assert "quantized weights" in before and "quantized weights" not in parts
    assert parts["activations"] == before["activations"]
    fast, slow = (plan_step_time(item, H200, micro_batches=1).seconds for item in (whole, four))
    assert fast < slow


@pytest.mark.parametrize(("memory_gib", "optimizer"), [(8.6, "paged_adamw_32bit"), (80, "adamw_torch_fused")])
def test_states_are_on_the_device_where_they_have_room(memory_gib: float, optimizer: str) -> None:
    """1.25 GiB of states: under 8.6 GiB nothing has room beside them; elsewhere all tensors are updated at once."""
    freedom = Freedom(optimizers=("adamw_torch_fused", "paged_adamw_32bit"))
    choice = choose(layouts(UNSLOTH), freedom, H200, room=room_on(memory_gib * GIB))
    assert choice.fits and choice.chosen.settings()["optim"] == optimizer


#: Nothing in main memory, the input embeddings, and the output head too.
PLACES = ((False, False), (True, False), (True, True))


@pytest.mark.parametrize(
    ("memory_gib", "place", "rows"),
    [(7, (True, True), 1), (7.5, (True, True), 2), (8, (True, False), 2), (9, (True, False), 4), (10, PLACES[0], 4)],
)
def test_the_head_follows_the_embedding(memory_gib: float, place: tuple[bool, bool], rows: int) -> None:
    """It does for larger micro-batches that are clearly faster, its copy included, and where nothing fits for room."""
    room = room_on(memory_gib * GIB)
    fewer, chosen = (choose(layouts(UNSLOTH), Freedom(places=PLACES[:n]), H200, room=room) for n in (2, 3))
    work = chosen.chosen.workload
    assert ((work.offloads_embedding, work.offloads_head), work.rows) == (place, rows)
    if not chosen.fits:
        assert chosen.chosen.memory.reserved < fewer.chosen.memory.reserved
    elif work.offloads_head:
        assert chosen.chosen.cost < WORTH_MOVING * fewer.chosen.cost
    else:
        assert chosen.chosen == fewer.chosen


def test_the_embedding_leaves_the_device_where_nothing_else_fits() -> None:
    """Then all else is chosen for that, and what had no room with it on the device is told."""
    both = Freedom(dequantized=(False, True), places=PLACES[:2])
    there = replace(both, places=PLACES[:1])
    for memory_gib in (8.2, 12, 141):
        room = room_on(memory_gib * GIB)
        choice, before = (choose(layouts(UNSLOTH), freedom, H200, room=room) for freedom in (both, there))
        assert choice.chosen.settings()["offload_embedding"] is not before.fits
        if before.fits:
            assert replace(choice, rejected=()) == replace(before, rejected=())
            continue
        given = [replace(item, workload=replace(item.workload, offloads_embedding=True)) for item in layouts(UNSLOTH)]
        assert choice.fits
        assert choice.chosen.workload == choose(given, replace(both, places=()), H200, room=room).chosen.workload
        assert all(item.workload.offloads_embedding for item in (choice.chosen, *choice.alternatives))
        assert not all(item.workload.offloads_embedding for item in choice.rejected)
    assert choose(layouts(UNSLOTH), both, H200, room=4 * GIB).chosen.workload.offloads_embedding


def test_the_embedding_leaves_the_device_for_clearly_less_time() -> None:
    """A little above the least memory, larger micro-batches fit beside it; further up they do so anyhow."""
    there, both = Freedom(), Freedom(places=PLACES[:2])
    for memory_gib, is_worth in ((8.5, True), (10, False)):
        room = room_on(memory_gib * GIB)
        stays, choice = (
            choose(layouts(UNSLOTH), there, H200, room=room),
            choose(layouts(UNSLOTH), both, H200, room=room),
        )
        assert stays.fits and choice.chosen.workload.offloads_embedding is is_worth
        assert (choice.chosen.cost < WORTH_MOVING * stays.chosen.cost) is is_worth


def test_states_have_room_where_paging_them_takes_as_long() -> None:
    """Long steps, of which the optimizer is a thousandth: what is not needed is not paged all the same."""
    long = [replace(layout, micro_batches=400) for layout in layouts(UNSLOTH)]
    choice = choose(long, Freedom(optimizers=("adamw_torch_fused", "paged_adamw_32bit")), H200, room=room_on(80 * GIB))
    assert choice.chosen.settings()["optim"] == "adamw_torch_fused"
