"""What keys that save memory take off a plan, to the byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured import KEEPS, MINIMAL, SHAPE, UNSLOTH, VANILLA

from component.config.load import load_config
from component.models.support import FAST_FAMILIES
from component.models.unsloth_lora import MLP, OUTPUT, QUERY_KEY_VALUE
from component.planning.activations import lengthened, saved_by_layer, saved_per_token, taken_by_backward
from component.planning.gpus import GPUS
from component.planning.logits import loss_memory, unsloth_part_bytes
from component.planning.memory import LIBRARY_BYTES, SMALL_LIBRARY_BYTES, _moments, plan_memory
from component.planning.plan import judge
from component.planning.read_config import FUSED_GROUPS, DataSize, Setting, read_workload
from component.planning.shape import UNSLOTH_FAMILIES
from component.planning.step_time import BYTES_FROM_HOST, flops, plan_step_time
from component.planning.weights import num_adapter_parameters, num_trained, unquantized_bytes
from component.planning.workload import Workload

VOCAB, HIDDEN = 128_256, 4096


def test_embeddings_in_main_memory_are_not_on_the_device() -> None:
    both = [replace(UNSLOTH, offloads_embedding=offloads) for offloads in (False, True)]
    assert unquantized_bytes(both[0]) - unquantized_bytes(both[1]) == 2 * VOCAB * HIDDEN == 2 * SHAPE.embedding
    workspaces = LIBRARY_BYTES - SMALL_LIBRARY_BYTES
    assert plan_memory(both[0]).allocated - plan_memory(both[1]).allocated == 2 * SHAPE.embedding + workspaces


def test_a_recomputed_layer_holds_its_output_through_unsloth_alone() -> None:
    """transformers stops a recomputation when the last saved tensor is there again."""
    for workload, outputs in ((UNSLOTH, 1), (replace(VANILLA, checkpointing="offload"), 0)):
        moments = {name: dict((item.name, item.num_bytes) for item in parts) for name, parts in _moments(workload)}
        layer = moments["backward pass of the first layer"]["activations of one layer"]
        assert layer - saved_by_layer(workload) == outputs * 2 * HIDDEN * workload.tokens


@pytest.mark.parametrize("waits", [False, True])
def test_gradients_between_kept_layers(waits: bool) -> None:
    """4 of 32 keep theirs: 7 layers have gradients before the next one is reached, and where it is trained the head."""
    full = replace(
        KEEPS, adapter=None, quantization=None, checkpointing="offload", skipped_layers=4, gradients_wait=waits
    )
    for workload in (replace(UNSLOTH, skipped_layers=4, gradients_wait=waits), full):
        moments = {name: dict((item.name, item.num_bytes) for item in parts) for name, parts in _moments(workload)}
        whole = moments["backward pass of the first layer"]["gradients"]
        head = 2 * SHAPE.embedding if workload is full else 0
        made = moments["backward pass before the next layer that recomputes nothing"]["gradients"]
        assert made == (whole if waits else head + (whole - head) * 7 / 32)


def test_a_head_in_main_memory_is_there_while_scores_are_made() -> None:
    """So it is no part of a peak in the layers' backward pass, and of one at the loss."""
    size = 2 * SHAPE.head
    kept = [plan_memory(replace(KEEPS, rows=8, quantization=None, offloads_head=is_off)) for is_off in (False, True)]
    assert [plan.moment for plan in kept] == ["loss", "loss"] and kept[0].allocated == kept[1].allocated
    minimal = [plan_memory(replace(MINIMAL, offloads_head=is_off)) for is_off in (False, True)]
    assert [plan.moment for plan in minimal] == ["backward pass of the first layer", "loss"]
    assert 0.6 * size < minimal[0].allocated - minimal[1].allocated < size


def test_what_is_moved_after_loading_is_there_while_it_lasts() -> None:
    """Measured so on an 8B shape: 5.44 GiB allocated, 6.1 reserved."""
    both = replace(MINIMAL, offloads_head=True)
    at_once, moved = plan_memory(both), plan_memory(replace(both, moves_offloaded=True))
    assert at_once.moment != "loading" and moved.moment == "loading"
    assert moved.allocated / 2**30 == pytest.approx(5.44, rel=0.01)
    assert moved.reserved / 2**30 == pytest.approx(6.1, rel=0.01)
    # What was reserved once counts, also where more is allocated later.
    rows = plan_memory(replace(both, moves_offloaded=True, row_tokens=4864))
    assert rows.moment != "loading" and rows.reserved == moved.reserved


@pytest.mark.parametrize(
    ("loader", "model_type", "overrides", "moves"),
    [
        ("unsloth", "llama", [], False),
        ("unsloth", "llama", ["quantization=int8"], True),
        ("unsloth", "phi3", [], True),
        ("vanilla", "phi3", ["quantization=int8"], False),
    ],
)
def test_which_loaders_move_weights_after_loading(loader: str, model_type: str, overrides: list[str], moves: bool):
    config = load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}, overrides)
    setting = Setting(loader, "bfloat16", "bfloat16", supports_varlen=True)
    assert read_workload(config, replace(SHAPE, model_type=model_type), setting).moves_offloaded is moves


@pytest.mark.parametrize(
    ("task", "reference", "passes"), [("sft", "none", 1), ("dpo", "adapter off", 2), ("kto", "adapter off", 4)]
)
def test_a_head_in_main_memory_is_copied_in_each_forward_pass(task: str, reference: str, passes: int) -> None:
    """Those of the reference too, and kto's with answers to other prompts."""
    here = replace(VANILLA, task=task, reference=reference)
    times = [
        plan_step_time(replace(here, offloads_head=is_off), GPUS["h200"], micro_batches=3).compute
        for is_off in (False, True)
    ]
    one = SHAPE.head * here.load_bytes / BYTES_FROM_HOST
    assert times[1] - times[0] == pytest.approx(3 * passes * one)


def test_a_head_in_main_memory_is_there_for_generation() -> None:
    sampled = replace(VANILLA, task="grpo")
    moments = [dict(_moments(replace(sampled, offloads_head=is_off)))["generation"] for is_off in (False, True)]
    sizes = [sum(part.num_bytes for part in parts) for parts in moments]
    assert sizes[1] - sizes[0] == 2 * SHAPE.head


@pytest.mark.parametrize(
    ("tokens", "limit", "rows"),
    [(1024, None, 512), (100, None, 100), (1024, 256, 256), (3000, 2048, 512)],
)
def test_parts_of_unsloths_loss(tokens: int, limit: int | None, rows: int) -> None:
    """By its own rule 512 tokens for this vocabulary, a limit lowers it."""
    assert unsloth_part_bytes(tokens, VOCAB, HIDDEN, limit) == rows * VOCAB * 4


def test_long_rows_take_tiles_of_the_vocabulary() -> None:
    sums = 4096 * HIDDEN * 4
    assert unsloth_part_bytes(131_072, VOCAB, HIDDEN) == 256 * 2**20 + sums
    assert unsloth_part_bytes(131_072, VOCAB, HIDDEN, 64) == 64 * VOCAB * 4 + sums
    assert loss_memory(replace(KEEPS, loss_chunk_tokens=64)).forward < loss_memory(KEEPS).forward


def test_the_vanilla_loss_has_scores_of_one_part() -> None:
    """Float32 scores and 16-bit copies, 6 bytes each; a trained head has its gradient besides, twice for a moment."""
    whole = replace(VANILLA, rows=4, row_tokens=2048)
    parts = loss_memory(replace(whole, loss_chunk_tokens=1024))
    assert parts.forward == 1024 * VOCAB * 6
    assert parts.backward == parts.largest == 0
    assert loss_memory(whole).forward == 8192 * VOCAB * 10
    trained = loss_memory(replace(whole, loss_chunk_tokens=1024, adapter=None, quantization=None, load_bytes=4))
    assert trained.forward - parts.forward == 2 * SHAPE.embedding * 4


@pytest.mark.parametrize(
    ("overrides", "chunk"),
    [
        ([], 1024), (["loss_chunk_tokens=64"], 64), (["task_type=dpo"], None),
    ],
)  # fmt: skip
def test_what_is_planned_is_what_the_vanilla_trainer_does(overrides: list[str], chunk: int | None) -> None:
    config = load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}, overrides)
    setting = Setting("vanilla", "bfloat16", "bfloat16", supports_varlen=True)
    assert read_workload(config, SHAPE, setting).loss_chunk_tokens == chunk
    assert read_workload(config, SHAPE, replace(setting, loader="unsloth")).loss_chunk_tokens == (
        64 if chunk == 64 else None
    )
    assert read_workload(config, SHAPE, replace(setting, chunks_loss=False)).loss_chunk_tokens is None


def test_a_tiled_mlp_has_one_tile() -> None:
    """Of a long row only what is as wide as the residual stream grows with its length, and attention is the peak."""
    long = replace(UNSLOTH, rows=1, row_tokens=131_072)
    tiled = replace(long, mlp_tile_tokens=HIDDEN)
    inner = 2 * SHAPE.mlp_width * 2
    assert saved_by_layer(long) - saved_by_layer(tiled) == (131_072 - HIDDEN) * inner
    assert saved_by_layer(replace(tiled, row_tokens=HIDDEN)) == saved_by_layer(replace(long, row_tokens=HIDDEN))
    # Gradients of output, queries, keys and values, float32 sums as wide as two of them, less the MLP's input; the
    # tensor between the MLP's matrices is there no more.
    of_attention = 2 * 2 * (SHAPE.query_width + SHAPE.key_width) + (8 - 2) * HIDDEN
    saved = (131_072 - HIDDEN) * (inner + inner / 2 - of_attention)
    assert plan_memory(long).allocated - plan_memory(tiled).allocated == saved


@pytest.mark.parametrize("loader", ["unsloth", "vanilla"])
def test_131072_tokens_fit_an_h200(loader: str) -> None:
    """train_args/base/long_context.json, QLoRA of an 8B shape, on both loaders."""
    base = ["train_args/base/qlora.json", "train_args/base/long_context.json"]
    config = load_config({"base": base, "model_name_or_path": "m", "train_file": "d", "output_dir": "o"})
    workload = read_workload(config, SHAPE, Setting(loader, "bfloat16", "bfloat16", supports_varlen=True))
    assert (workload.checkpointing, workload.mlp_tile_tokens, workload.tokens) == ("offload", HIDDEN, 131_072)
    assert judge(plan_memory(workload), GPUS["h200"]) == "fits"


def test_fused_adapters_and_norms_that_keep_what_they_give() -> None:
    """Numbers of 16 bit: between an adapter's matrices, in casts that live from forward to backward, in norms."""
    plain = replace(KEEPS, is_packed=True, sample_tokens=330)
    fused = replace(plain, has_fused_adapters=True)
    both = replace(fused, keeps_norm_outputs=True)
    tokens, rank, linears = 4 * 2048, 64, 7
    between = tokens * linears * rank * 2
    assert saved_by_layer(fused) - saved_by_layer(plain) == between
    assert saved_by_layer(fused) - saved_by_layer(both) == tokens * 2 * HIDDEN * 2
    restored = replace(both, is_dequantized=True)
    assert saved_by_layer(restored) - saved_by_layer(both) == tokens * HIDDEN * 2, "the MLP has a copy of its input"
    casts = num_adapter_parameters(plain) * 2
    peaks = [plan_memory(replace(work, is_dequantized=True)).allocated for work in (plain, fused)]
    assert peaks[1] - peaks[0] == SHAPE.num_layers * between + casts


@pytest.mark.parametrize(
    ("overrides", "is_fused", "keeps"),
    [
        ([], True, True),
        (["lora_dropout=0.05"], False, True),
        (["use_dora=true"], False, True),
        (["fused_lora=false"], False, True),
        (["lora_bias=true"], False, True),
        (["quantization=int8"], False, True),
        (["train_mode=full"], False, False),
        (["lora_target_modules=[q_proj,v_proj]"], False, True),
        (["lora_target_modules=[gate_proj,down_proj,k_proj]"], False, True),
        (["lora_target_modules=[q_proj,k_proj,v_proj]"], True, True),
        (["lora_target_modules=[o_proj]"], True, True),
        (["lora_target_modules=[gate_proj,up_proj,down_proj]"], True, True),
    ],
)
def test_what_is_planned_is_what_unsloth_does(overrides: list[str], is_fused: bool, keeps: bool) -> None:
    config = load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}, overrides)
    setting = Setting("unsloth", "bfloat16", "bfloat16", supports_varlen=True)
    workload = read_workload(config, SHAPE, setting)
    assert (workload.has_fused_adapters, workload.keeps_norm_outputs) == (is_fused, keeps)
    other = read_workload(config, replace(SHAPE, model_type="phi3"), setting)
    assert not (other.has_fused_adapters or other.keeps_norm_outputs)
    vanilla = read_workload(config, SHAPE, replace(setting, loader="vanilla"))
    assert not (vanilla.has_fused_adapters or vanilla.keeps_norm_outputs)


def test_recomputation_leaves_out_the_last_product_of_fused_mlps_alone() -> None:
    """Of all seven layers' weights it is 27 %, and it is computed where an MLP is not adapted as a whole."""
    packed = replace(UNSLOTH, is_packed=True, sample_tokens=1)  # attention counts for more with fused adapters
    fused = replace(packed, has_fused_adapters=True)
    down = next(linear for linear in SHAPE.linears if linear.name == "down_proj")
    left_out = 2 * down.num_weights * SHAPE.num_layers * packed.tokens
    assert flops(packed) - flops(fused) == pytest.approx(left_out, rel=1e-3)
    adapter = replace(packed.adapter, targets=packed.adapter.targets - {"up_proj"})
    assert flops(replace(fused, adapter=adapter)) == pytest.approx(flops(replace(packed, adapter=adapter)), rel=1e-4)


def test_the_families_of_these_norms_are_unsloths_own() -> None:
    assert set(UNSLOTH_FAMILIES) == set(FAST_FAMILIES)


def test_groups_are_those_that_the_loader_fuses() -> None:
    assert FUSED_GROUPS == (QUERY_KEY_VALUE, OUTPUT, MLP)


def test_packed_rows_have_rotary_tables_for_all_positions() -> None:
    """131,072 positions of 128 features, sines and cosines in 16 bit: 64 MiB."""
    workload = replace(UNSLOTH, shape=replace(SHAPE, max_positions=131_072), is_packed=True, sample_tokens=330)
    assert part(workload, "rotary tables") == 64 * 2**20
    assert part(replace(workload, is_packed=False), "rotary tables") == 0
    assert part(replace(workload, loader="vanilla"), "rotary tables") == 0


def test_states_of_small_tensors_are_not_paged() -> None:
    """Rank 16 on an 8B shape: only the matrices on the MLP's width have 100,000 numbers, one of three layers each."""
    workload = replace(UNSLOTH, adapter=replace(UNSLOTH.adapter, rank=16))
    on_inner = 3 * 16 * 14_336 * 32
    small = num_trained(workload) - on_inner
    assert part(workload, "optimizer (paged_adamw_32bit)") == 8 * small
    assert plan_memory(workload).paged == 8 * on_inner
    assert part(replace(workload, optimizer="adamw_torch_fused"), "optimizer (adamw_torch_fused)") == 8 * (
        small + on_inner
    )


@pytest.mark.parametrize(
    ("data", "rows", "is_full"),
    [(None, 1, True), (None, 2, False), (DataSize(9, 300, 2048), 1, True), (DataSize(9, 300, 1024), 1, False)],
)
def test_a_pack_may_be_one_sample(data: DataSize | None, rows: int, is_full: bool) -> None:
    """Which goes to cuDNN's attention, as a row that is not packed, but as long as it is."""
    keys = {"packing": True, "max_seq_length": 2048, "per_device_train_batch_size": rows}
    config = load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o", **keys})
    setting = Setting("unsloth", "bfloat16", "bfloat16", supports_varlen=True)
    workload = read_workload(config, SHAPE, setting, data)
    assert workload.has_full_rows is is_full
    tiled, sums = replace(workload, mlp_tile_tokens=16), 4 * SHAPE.query_width if is_full else 0
    added = taken_by_backward(tiled) - taken_by_backward(replace(tiled, has_full_rows=False))
    assert added == pytest.approx(sums * 2048 * rows, rel=0.01)
    assert saved_per_token(workload) == saved_per_token(replace(workload, has_full_rows=False))


def test_unpacked_rows_are_lengthened_for_cudnn() -> None:
    """Queries, keys, values and output of 2,176 tokens instead of 2,048, as it was traced, and the output once more."""
    unpacked = replace(UNSLOTH, row_tokens=2048)
    in_sdpa = 2 * 2 * (SHAPE.query_width + SHAPE.key_width) + 4 * SHAPE.num_heads
    added = saved_per_token(unpacked) - saved_per_token(replace(unpacked, is_packed=True))
    assert added == pytest.approx(in_sdpa * 128 / 2048 + 2 * SHAPE.query_width)
    assert [lengthened(tokens) for tokens in (1, 127, 128, 129)] == [128, 128, 256, 256]


def test_unsloth_keeps_the_inputs_of_head_norms() -> None:
    """Those of 32 query heads and 8 key heads of 128 features, in 16 bit."""
    qwen3 = replace(UNSLOTH, shape=replace(SHAPE, model_type="qwen3"))
    assert saved_per_token(qwen3) - saved_per_token(UNSLOTH) == 2 * (4096 + 1024)


def part(workload: Workload, name: str) -> float:
    return sum(each.num_bytes for each in plan_memory(workload).parts if each.name == name)
