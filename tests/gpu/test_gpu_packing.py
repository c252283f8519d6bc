"""Packed rows on a GPU: the loss and gradients of the samples alone, within the noise of 16-bit arithmetic.

Each loader runs in a process of its own, since Unsloth patches its process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import torch
from shared_process import SharedProcess

from component.models.tiny import Shape, make_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

#: Nats, and the norm of the gradients' difference relative to their norm. A leak moves the gradients by about 1.
LOSS_TOLERANCE = 5e-3
GRADIENT_TOLERANCE = 5e-2

COMPARE = """
import sys
loader, folder = sys.argv[1:]
from component.config.schema import AdapterSection, ModelSection
from component.registry import LOADERS
from component.runtime.hardware import detect_hardware

def section(folder, mode, attention):
    return ModelSection(
        model_name_or_path=folder, max_seq_length=256, train_mode=mode, bf16=True, gradient_checkpointing=False,
        use_unsloth="require" if loader == "unsloth" else False, attn_implementation=attention, packing=True,
    )

hardware = detect_hardware(use_cpu=False)
if loader == "unsloth":
    from component.models.unsloth_import import import_unsloth
    import_unsloth(section(folder, "lora", "auto"), hardware)
import torch
from component.data.collators import PackingCollator
from component.data.packing import pack
from component.models.packed_attention import probe_leak
from component.models.precision import resolve_precision
from component.models.tokenizer import load_tokenizer
from component.models.varlen_attention import register_varlen
from component.pipeline.benchmark.process_memory import release_memory

lengths = [17, 140, 3, 125, 256, 2, 31, 90, 200, 64]

def load(section):
    release_memory()
    register_varlen(object())  # fails where it is called: each model is to bring its own, as in a new process
    return LOADERS.get(loader)(
        section, AdapterSection(lora_rank=8, lora_alpha=16), tokenizer=load_tokenizer(section).tokenizer,
        precision=resolve_precision(section, hardware), hardware=hardware,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )

def draw_samples():
    generator, samples = torch.Generator().manual_seed(1), []
    for length in lengths:
        ids = torch.randint(10, 210, (length,), generator=generator).tolist()
        prompt = max(length // 3, 1)
        samples.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return samples

def answer(folder, mode, attention):
    loaded = load(section(folder, mode, attention))
    model = loaded.model
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    torch.manual_seed(0)
    with torch.no_grad():
        for name in sorted(trained):
            if "lora_B" in name:  # zero at first: nothing of the adapter would show
                trained[name].copy_(torch.randn(trained[name].shape) * 0.02)
    probe = probe_leak(model, range(10, 210), compute_dtype="bfloat16")
    samples = draw_samples()
    num_items = torch.tensor(sum(sum(label != -100 for label in sample["labels"]) for sample in samples), device="cuda")

    def measure(batches):
        total = 0.0
        for batch in batches:
            batch = {name: tensor.cuda() for name, tensor in batch.items()}
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = model(**batch, num_items_in_batch=num_items, use_cache=False).loss
            loss.backward()
            total += loss.item()
        gradient = torch.cat([parameter.grad.float().flatten() for parameter in trained.values()])
        model.zero_grad()
        return total, gradient.clone()

    alone = [{name: torch.tensor([values]) for name, values in sample.items()} for sample in samples]
    dataset = [
        {name: [samples[number][name] for number in numbers] for name in ("input_ids", "labels")}
        for numbers in pack(lengths, capacity=256)
    ]
    expected, expected_gradient = measure(alone)
    again, again_gradient = measure(alone[::-1])
    result = {"probe": vars(probe), "leaks": probe.leaks, "num_packs": len(dataset), "got": dict(loaded.got)}

    def difference(loss, gradient):
        return [abs(loss - expected), ((gradient - expected_gradient).norm() / expected_gradient.norm()).item()]

    result["noise"] = difference(again, again_gradient)
    for size in (1, 2, len(dataset)):
        rows = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
        packed = measure([PackingCollator()([dataset[row] for row in part]) for part in rows])
        result[f"packs of {size}"] = difference(*packed)
    return result
"""


@pytest.fixture(scope="module")
def model(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    shape = Shape(hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    make_tiny_model(folder, shape=shape, seed=0, texts=[repository / "data/demo/pretrain.jsonl"])
    return folder


@pytest.fixture(scope="module")
def windowed_model(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral whose sliding window is shorter than most samples."""
    folder, texts = tmp_path_factory.mktemp("windowed"), [repository / "data/demo/pretrain.jsonl"]
    make_tiny_model(folder, shape=Shape(), seed=0, texts=texts, model_type="mistral")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 48}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def processes(repository: Path, model: Path) -> Iterator[dict[str, SharedProcess]]:
    """One of each loader, and one of Unsloth with its switch for the kernel off, which it reads at its import."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    kinds = {
        "vanilla": ("vanilla", {}),
        "unsloth": ("unsloth", {}),
        "switch": ("unsloth", {"UNSLOTH_TORCH_VARLEN": "0"}),
    }
    with ExitStack() as open_ones:
        found = {}
        for name, (loader, variables) in kinds.items():
            process = SharedProcess(COMPARE, loader, str(model), cwd=repository, env={**environment, **variables})
            found[name] = open_ones.enter_context(closing(process))
        yield found


def compare(process: SharedProcess, model: Path, mode: str, attention: str) -> dict:
    """Load a model, compare packed rows with samples alone, and hold the differences to the noise."""
    result = process.ask(folder=str(model), mode=mode, attention=attention)
    print(f"{result['got']['loader']} {attention} {mode}: {json.dumps(result)}")
    assert not result["leaks"], result["probe"]
    assert result["probe"]["joined_change"] > result["probe"]["tolerance"], "the probe could not have seen a leak"
    shapes = [name for name in result if name.startswith("packs of")]
    assert len(shapes) == 3
    for name in shapes:
        loss, gradient = result[name]
        assert loss <= LOSS_TOLERANCE and gradient <= GRADIENT_TOLERANCE, name
    return result["got"]


@pytest.mark.parametrize("mode", ["qlora", "lora"])
@pytest.mark.parametrize(("loader", "attention"), [("vanilla", "sdpa"), ("vanilla", "auto"), ("unsloth", "auto")])
def test_packed_equals_separate(
    processes: dict[str, SharedProcess], model: Path, loader: str, attention: str, mode: str
) -> None:
    got = compare(processes[loader], model, mode, attention)
    if attention == "auto":
        assert "variable-length kernel" in got["packed_attention"], got["packed_attention_reason"]
    else:
        assert got["packed_attention"] == "SDPA with a dense mask"


@pytest.mark.parametrize("loader", ["vanilla", "unsloth"])
def test_a_sliding_window_ends_inside_its_sample(
    processes: dict[str, SharedProcess], windowed_model: Path, loader: str
) -> None:
    got = compare(processes[loader], windowed_model, "lora", "auto")
    assert "variable-length kernel" in got["packed_attention"], got["packed_attention_reason"]


def test_unsloth_without_the_kernel(processes: dict[str, SharedProcess], model: Path) -> None:
    """Its own switch leaves it to SDPA, a call for each sample, and the run says so."""
    got = compare(processes["switch"], model, "lora", "auto")
    assert got["packed_attention"] == "SDPA, a call for each sample"
    assert got["packed_attention_reason"] == "UNSLOTH_TORCH_VARLEN is 0 in the environment"
