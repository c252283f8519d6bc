"""What the planner counts on paper is what autograd, PEFT and bitsandbytes keep, byte for byte, on a CPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from component.planning.activations import saved_per_token
from component.planning.optimizer import optimizer_memory, workspace_bytes
from component.planning.shape import ModelShape, read_shape
from component.planning.weights import cast_weight_bytes, merged_rows_bytes, num_adapter_parameters, quantized_bytes
from component.planning.workload import Adapter, Workload

SIZES = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False,
}  # fmt: skip
ROWS, LENGTH = 2, 128
RANK = 4


def shape_of(num_layers: int, family: str = "llama") -> ModelShape:
    shape = read_shape({**SIZES, "model_type": family, "head_dim": 32, "num_hidden_layers": num_layers})
    assert shape is not None
    return shape


def workload_of(num_layers: int, mode: str, family: str = "llama") -> Workload:
    shape = shape_of(num_layers, family)
    adapter = Adapter(RANK, frozenset(linear.name for linear in shape.linears), num_layers)
    return Workload(
        shape=shape,
        task="sft",
        loader="vanilla",
        quantization={"qlora": "nf4", "int8": "int8"}.get(mode),
        double_quantization=True,
        adapter=None if mode == "full" else adapter,
        trained_layers=None,
        load_bytes=4 if mode == "full" else 2,
        compute_bytes=2,
        checkpointing="none",
        attention="sdpa",
        is_packed=False,
        is_padded=False,
        has_liger=False,
        optimizer="sgd",
        rows=ROWS,
        row_tokens=LENGTH,
        gradients_wait=False,
    )


def build(num_layers: int, mode: str, folder: Path, family: str = "llama") -> nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from component.models.quantization import build_4bit_config, build_8bit_config, prepare_four_bit_layers

    sizes = {name: size for name, size in SIZES.items() if name != "model_type"}
    config = CONFIG_MAPPING[family](**sizes, head_dim=32, num_hidden_layers=num_layers)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if mode == "full" else torch.bfloat16)
    if mode == "full":
        return model
    if mode != "lora":
        model.save_pretrained(folder)
        made = {
            "qlora": build_4bit_config(quant_type="nf4", use_double_quant=True, compute_dtype="bfloat16"),
            "int8": build_8bit_config(),
        }[mode]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=made)
        prepare_four_bit_layers(model, compute_dtype="bfloat16")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    targets = [linear.name for linear in shape_of(1).linears]
    return get_peft_model(model, LoraConfig(r=RANK, target_modules=targets))


@contextmanager
def counted(model: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd saves, parameters aside; all are kept, so that addresses stay apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    own |= {buffer.untyped_storage().data_ptr() for buffer in model.buffers()}
    found: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.device.type != "meta":
            found[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def saved_bytes(num_layers: int, mode: str, folder: Path, family: str) -> int:
    """All that one forward pass saves."""
    model = build(num_layers, mode, folder, family).train()
    ids = torch.randint(0, SIZES["vocab_size"], (ROWS, LENGTH))
    with counted(model) as found, torch.autocast("cpu", torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        # PEFT asks for a GPU's autocast, and casts the inputs of quantized layers where there is none. Within
        # torch.autocast, which would leave what it is told here switched on for good.
        patch.setattr(torch, "is_autocast_enabled", lambda *device: True)
        embedded = model.get_input_embeddings()(ids).requires_grad_()
        hidden = model.get_base_model().model if mode != "full" else model.model
        hidden(inputs_embeds=embedded, use_cache=False)
    return sum(found.values())


@pytest.mark.parametrize(
    ("mode", "family", "normed"),
    [("qlora", "llama", 2), ("lora", "llama", 2), ("full", "llama", 2), ("qlora", "qwen3", 12), ("full", "qwen3", 12)],
)
def test_saved_activations_of_a_layer(mode: str, family: str, normed: int, tmp_path: Path) -> None:
    """The difference of three layers and two."""
    three, two = (saved_bytes(number, mode, tmp_path / str(number), family) for number in (3, 2))
    work = workload_of(1, mode, family)
    normal_factors = normed * 4  # of each norm, one a token or head
    layer_copy, _ = cast_weight_bytes(work)
    predicted = ROWS * LENGTH * (saved_per_token(work) + normal_factors) + layer_copy
    assert (three - two) == pytest.approx(predicted, rel=0.003)


def test_adapter_has_the_parameters_that_are_counted(tmp_path: Path) -> None:
    model = build(3, "lora", tmp_path)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert num_adapter_parameters(workload_of(3, "lora")) == trained


@pytest.mark.parametrize(("quant_type", "double"), [("nf4", True), ("nf4", False), ("fp4", True)])
def test_four_bit_weights_have_the_bytes_that_are_counted(quant_type: str, double: bool) -> None:
    """Packed weights, the constants of their blocks and those of the constants; not the code tables of each layer."""
    from bitsandbytes.functional import quantize_4bit

    work = replace(workload_of(1, "qlora"), quantization=quant_type, double_quantization=double)
    total = 0
    for linear in work.shape.linears:
        weight = torch.randn(linear.features_out, linear.features_in, dtype=torch.bfloat16)
        packed, state = quantize_4bit(weight, quant_type=quant_type, compress_statistics=double)
        constants = [packed, state.absmax, *([state.state2.absmax] if double else [])]
        total += sum(tensor.numel() * tensor.element_size() for tensor in constants)
    assert quantized_bytes(work) == pytest.approx(total, rel=1e-4)


def test_eight_bit_weights_have_the_bytes_that_are_counted(tmp_path: Path) -> None:
    model = build(2, "int8", tmp_path)
    layers = [
        module for module in model.modules() if type(module).__name__ == "Linear8bitLt" and hasattr(module, "state")
    ]
    weights = [module.weight for module in layers if module.weight.dtype == torch.int8]
    assert len(weights) == 14
    total = sum(weight.numel() + weight.SCB.numel() * 4 for weight in weights)
    assert quantized_bytes(workload_of(2, "int8")) == total


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused", "adamw_8bit", "lion_8bit", "sgd", "adafactor"])
def test_optimizer_states_have_the_bytes_that_are_counted(name: str) -> None:
    from bitsandbytes.optim import GlobalOptimManager
    from transformers import Trainer, TrainingArguments

    # Earlier runs of the process may have asked for 32-bit states of a tensor whose id is this one's by now.
    GlobalOptimManager.get_instance().initialize()
    weight = nn.Linear(1024, 1024, bias=False)
    kind, keywords = Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(output_dir="unused", optim=name), weight)
    optimizer = kind(weight.parameters(), **keywords)
    weight(torch.randn(2, 1024)).sum().backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for key, value in state.items() if not key.startswith("qmap")]
    total = sum(value.numel() * value.element_size() for value in states if isinstance(value, torch.Tensor))
    assert total / 1024**2 == pytest.approx(optimizer_memory(name).state, abs=0.01)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as they live; views take none."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {item.data_ptr() for item in args if isinstance(item, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.data_ptr() not in given:
            num_bytes = result.numel() * result.element_size()
            self.now += num_bytes
            self.peak = max(self.peak, self.now)
            weakref.finalize(result, self._free, num_bytes)
        return result

    def _free(self, num_bytes: int) -> None:
        self.now -= num_bytes


@pytest.mark.parametrize("is_tied", [True, False])
def test_new_rows_cost_a_copy_of_the_head_and_its_gradient(is_tied: bool) -> None:
    """Of a vocabulary beside which all else is small, at the end of the forward pass and in the backward pass."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {**SIZES, "hidden_size": 128, "intermediate_size": 256, "vocab_size": 20000, "tie_word_embeddings": is_tied}
    shape = read_shape({**sizes, "num_hidden_layers": 2})
    del sizes["model_type"]
    adapter = Adapter(RANK, frozenset({"q_proj"}), 2, new_rows=frozenset({"embed_tokens", "lm_head"}))
    merged = merged_rows_bytes(replace(workload_of(2, "lora"), shape=shape, adapter=adapter), "lm_head")
    rows = {"model.embed_tokens": [5]} | ({} if is_tied else {"lm_head": [5]})
    ids = torch.arange(8)[None]

    def live_bytes(rows: dict[str, list[int]] | None) -> tuple[int, int]:
        config = LlamaConfig(**sizes, num_hidden_layers=2)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model = get_peft_model(
            model, LoraConfig(r=RANK, target_modules=["q_proj"], trainable_token_indices=rows)
        ).train()
        with LiveBytes() as live:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            kept = live.now
            loss.backward()
        return kept, live.peak

    (kept, peak), (kept_without, peak_without) = live_bytes(rows), live_bytes(None)
    assert kept - kept_without == pytest.approx(merged, rel=0.01)
    assert peak - peak_without == pytest.approx(2 * merged, abs=peak_without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adafactor_makes_the_copies_that_are_counted(dtype: torch.dtype) -> None:
    from transformers import Trainer, TrainingArguments

    small, large = (nn.Linear(width, 1024, bias=False, dtype=dtype) for width in (4, 1024))
    model = nn.ModuleList([small, large])
    kind, keywords = Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(output_dir="x", optim="adafactor"), model)
    optimizer = kind(model.parameters(), **keywords)
    for layer in (small, large):
        layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    with LiveBytes() as live:
        optimizer.step()
    width = large.weight.element_size()
    planned = workspace_bytes("adafactor", 1028 * 1024, num_in_largest=1024 * 1024, width=width)
    assert live.peak == pytest.approx(planned, rel=0.01)
