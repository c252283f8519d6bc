"""What a plan says of a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from component.config.load import load_config
from component.pipeline.plan_notices import FIXED_SEGMENTS
from component.pipeline.plan_run import compare_cards, plan_config
from component.planning.gpus import GIB, GPUS
from component.planning.memory import MemoryPlan
from component.planning.plan import judge
from component.planning.read_config import DataSize, Setting, read_workload, unsloth_fields


@pytest.mark.parametrize(
    ("allocated", "reserved", "verdict"),
    [(10, 14.6, "fits"), (10, 14.7, "tight"), (15.0, 20, "tight"), (15.2, 20, "does not fit"), (15.2, 15.4, "tight")],
)
def test_verdicts(allocated: float, reserved: float, verdict: str) -> None:
    """A card of 16 GiB, of which CUDA takes 0.55 and auto leaves 0.8."""
    memory = MemoryPlan((), "", allocated * GIB, reserved * GIB, 0)
    assert judge(memory, replace(GPUS["4080"], memory_bytes=16 * GIB)) == verdict


def test_unsloth_recomputes_from_main_memory_from_512_tokens_of_max_seq_length_on(repository: Path) -> None:
    """As Unsloth's loader decides, which knows no data: below, the inputs of the layers are on the device."""
    short, long = (
        load_config(repository / "train_args/sft/qlora/llama3-8b.json", [f"max_seq_length={number}"])
        for number in (511, 512)
    )
    kept, moved = (plan_config(config, "h200").plan for config in (short, long))
    assert (kept.workload.checkpointing, moved.workload.checkpointing) == ("recompute", "offload")
    assert kept.memory.allocated > moved.memory.allocated
    setting = Setting("unsloth", "bfloat16", "bfloat16", supports_varlen=True)
    data = DataSize(num_rows=100, mean_tokens=100.0, longest=200)
    assert read_workload(long, moved.workload.shape, setting, data).checkpointing == "offload"
    as_it_is = [card for card in compare_cards(kept, short) if card.overrides == ()]
    assert as_it_is and all(card.reserved_bytes == kept.memory.reserved for card in as_it_is)


@pytest.mark.parametrize(
    "overrides",
    [
        [], ["max_seq_length=400"], ["gradient_checkpointing=false"], ["lora_dropout=0.1"], ["quantization=int8"],
        ["loss_chunk_tokens=64"], ["packing=true"], ["attn_implementation=eager"], ["fused_lora=false"],
        ["train_mode=lora"], ["gradient_checkpointing_kwargs.offload=true", "max_seq_length=400"],
    ],
)  # fmt: skip
def test_unsloths_fields_are_those_of_a_run_with_it(repository: Path, overrides: list[str]) -> None:
    """Whatever the vanilla loader has in their place; Unsloth takes no attention that is asked for."""
    config = load_config(repository / "train_args/sft/qlora/llama3-8b.json", overrides)
    shape = plan_config(config, "h200").plan.workload.shape
    vanilla, unsloth = (
        read_workload(config, shape, Setting(loader, "bfloat16", "bfloat16", supports_varlen=True, has_liger=liger))
        for loader, liger in (("vanilla", True), ("unsloth", False))
    )
    changed = replace(vanilla, **unsloth_fields(vanilla, config))
    assert changed == replace(unsloth, attention="auto")


def test_rows_of_new_tokens_are_counted(repository: Path) -> None:
    """Beside an adapter: its copy of the head and the gradient are where most is allocated. In full they are not."""

    def plan(*overrides: str) -> MemoryPlan:
        config = load_config(repository / "train_args/sft/qlora/llama3-8b.json", overrides)
        return plan_config(config, "h200").plan.memory

    rows, matrix = "new_tokens=['<tool>']", 128256 * 4096 * 2
    memory = plan(rows)
    assert memory.moment == "loss", "Unsloth's loss has the gradient at once"
    assert [part.num_bytes for part in memory.parts if part.name == "head with new rows"] == [2 * matrix]
    many = [part.num_bytes for part in plan("new_tokens=[" + ",".join(f"<{n}>" for n in range(1000)) + "]").parts]
    assert sum(many) - sum(part.num_bytes for part in memory.parts) >= 999 * 2 * 4096 * 4
    assert matrix < memory.allocated - plan().allocated < 2 * matrix
    saved = "modules_to_save=[embed_tokens,lm_head]"
    assert plan(saved, rows) == plan(saved)
    embeddings, head = "modules_to_save=[embed_tokens]", "modules_to_save=[lm_head]"
    assert matrix < plan(embeddings, rows).allocated - plan(embeddings).allocated <= 2 * matrix
    # The gradient of all embeddings comes when what the layers take is free, so it is not the peak.
    assert 0 < plan(head, rows).allocated - plan(head).allocated < 10 * 4096 * 4
    names = {part.name for part in plan("task_type=reward", rows).parts}
    assert "activations" in names and "head with new rows" not in names


def test_where_segments_do_not_grow_more_is_lost(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As inside WSL 2 or beside vLLM: cuDNN's workspace then is of no use to others; packed rows need none."""

    def plan(*overrides: str) -> MemoryPlan:
        config = load_config(repository / "train_args/sft/qlora/llama3-8b.json", overrides)
        return plan_config(config, "h200").plan.memory

    padded, packed = plan(), plan("packing=true")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "garbage_collection_threshold:0.8")
    fixed = plan()
    config = load_config(repository / "train_args/sft/qlora/llama3-8b.json")
    assert plan_config(config, "h200").notices == (FIXED_SEGMENTS,)
    assert fixed.allocated == padded.allocated and fixed.reserved > padded.reserved + 0.2 * GIB
    assert plan("packing=true") == packed


def test_names_that_a_plan_does_not_count_are_told(repository: Path) -> None:
    """A misspelt one trains nothing in the plan, and stops the run; those that are counted are not told."""
    names = ["modules_to_save=[embed_tokns, model.embed_tokens, lm_head]", "lora_target_modules=[q_proj, v_prj]"]
    config = load_config(repository / "train_args/sft/qlora/llama3-8b.json", names)
    target, saved = plan_config(config, "h200").notices
    assert saved.startswith("modules_to_save: 'embed_tokns' is not counted in the plan, which knows embed_tokens and")
    assert target.startswith("lora_target_modules: 'v_prj' is not counted in the plan, which knows q_proj, k_proj,")


def test_experts_that_stay_as_they_are_are_told(repository: Path) -> None:
    """Of 30.5 billion parameters 29.0 are experts' and routers'."""
    file = repository / "train_args/sft/qlora/qwen3-30b-a3b.json"
    experts = "29.0 billion parameters of experts and their routers get no adapter"
    assert plan_config(load_config(file), "h200").notices == (f"{experts} and stay in 16 bit",)
    assert plan_config(load_config(file, ["train_mode=lora"]), "h200").notices == (experts,)
    assert plan_config(load_config(repository / "train_args/sft/qlora/llama3-8b.json"), "h200").notices == ()


@pytest.mark.parametrize("name", ["lomo", "galore_adamw", "apollo_adamw", "adamw_torch_4bit", "adamw_torch_8bit"])
def test_optimizers_that_a_plan_does_not_count_are_told(repository: Path, name: str) -> None:
    """They are planned as AdamW in float32, and none as more than that."""
    file = repository / "train_args/sft/full/llama3.2-1b.json"
    planned, adamw = (plan_config(load_config(file, [f"optim={optim}"]), "h200") for optim in (name, "adamw_torch"))
    (told,) = planned.notices
    assert told.startswith(f"optim: {name} is not counted in the plan, which has the states of adamw_torch in")
    assert adamw.notices == () and planned.plan.memory.allocated == adamw.plan.memory.allocated


def test_what_processes_share_out_is_counted_whole_and_told(repository: Path) -> None:
    file = repository / "train_args/sft/full/llama3.2-1b.json"
    shared, alone = (plan_config(load_config(file, keys), "h200") for keys in (["deepspeed=ds.json"], []))
    assert [notice.partition(":")[0] for notice in shared.notices] == ["deepspeed"] and alone.notices == ()
    assert shared.plan.memory.allocated >= alone.plan.memory.allocated


@pytest.mark.parametrize("name", ["dpo/qlora/llama3-8b", "grpo/qlora/qwen2.5-7b"])
def test_packing_that_a_task_does_not_read_changes_no_plan(repository: Path, name: str) -> None:
    """A base for long rows has it; it made rows full ones and `auto` choose for these."""
    file, open_keys = repository / f"train_args/{name}.json", ["per_device_train_batch_size=auto"]
    packed, plain = (
        plan_config(load_config(file, [*open_keys, f"packing={value}"]), "4090") for value in ("auto", "false")
    )
    assert packed.plan == plain.plan and packed.auto == plain.auto
    assert not packed.plan.workload.is_packed


def test_a_cap_above_the_memory_of_the_card_is_told(repository: Path) -> None:
    """Who plans a card of 32 GiB as one of 24 must name another."""
    file = repository / "train_args/sft/qlora/llama3-8b.json"
    above, below = (plan_config(load_config(file, [f"max_memory_gib={cap}"]), "3090").notices for cap in (32, 12))
    assert above == ("max_memory_gib: 32 has no effect: RTX 3090 has 24 GiB",) and below == ()
