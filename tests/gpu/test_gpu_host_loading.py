"""Embeddings and head that are kept in main memory never are on the card, on both loaders, and the loss is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from component.models.tiny import Shape, make_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

#: Embeddings and head take 128 MiB each in 16 bit, all that is left 10 MiB.
SHAPE = Shape(
    vocab_size=131_072, hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=8,
    num_key_value_heads=4, tie_word_embeddings=False,
)  # fmt: skip
MATRIX = SHAPE.vocab_size * SHAPE.hidden_size * 2
#: Nats by which the loss of one step may differ.
TOLERANCE = 2e-3

BOTH = "offload_embedding offload_head"
#: What is kept in main memory, one after the other in one process. The first load takes what a process takes once, so
#: that the later ones, which are compared, begin alike.
VARIANTS = (BOTH, "", BOTH, "offload_embedding", "offload_head")

STEPS = """
import json, sys
loader, folder, limit, *variants = sys.argv[1:]
from component.config.schema import AdapterSection, ModelSection
from component.pipeline.benchmark.process_memory import release_memory
from component.pipeline.choose_loader import choose_loader
from component.registry import LOADERS
from component.runtime.hardware import detect_hardware

models = [
    ModelSection(
        model_name_or_path=folder, max_seq_length=64, use_unsloth="require" if loader == "unsloth" else False,
        bf16=True, train_mode="qlora", **dict.fromkeys(keys.split(), True),
    )
    for keys in variants
]
hardware = detect_hardware()
assert {choose_loader(model, "sft", hardware).got for model in models} == {loader}
if loader == "unsloth":
    from component.models.unsloth_import import import_unsloth
    import_unsloth(models[0], hardware)
import torch
from component.models.precision import resolve_precision
from component.models.tokenizer import load_tokenizer

def step(model):
    # cuBLAS's workspaces too, which outlive a model, so that each load begins as that of a new process does.
    torch._C._cuda_clearCublasWorkspaces()
    release_memory()
    left = torch.cuda.memory_allocated()
    if int(limit):
        torch.cuda.set_per_process_memory_fraction(int(limit) / torch.cuda.get_device_properties(0).total_memory)
    loaded = LOADERS.get(loader)(
        model, AdapterSection(lora_rank=8, lora_alpha=16), tokenizer=load_tokenizer(model).tokenizer,
        precision=resolve_precision(model, hardware), hardware=hardware,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.set_per_process_memory_fraction(1.0)
    base = loaded.model.get_base_model()
    hooked = [name for name, module in base.named_modules() if hasattr(module, "_hf_hook")]
    torch.manual_seed(0)
    for name, value in sorted(loaded.model.named_parameters()):
        if "lora_B" in name:
            value.data.copy_(torch.randn(value.shape) * 0.02)
    ids = (torch.arange(96).reshape(2, 48) * 7 % 200 + 10).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = loaded.model(input_ids=ids, labels=ids.clone(), use_cache=False).loss
    loss.backward()
    gradient = sum(value.grad.float().norm().item() for value in loaded.model.parameters() if value.grad is not None)
    return {
        "left": left, "peak": peak, "loss": loss.item(), "gradient": gradient, "hooked": hooked,
        "notices": list(loaded.notices), "map": str(getattr(base, "hf_device_map", None)),
        "embedding": base.get_input_embeddings().weight.device.type,
    }

print("RESULT", json.dumps([step(model) for model in models]))
"""


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("model")
    make_tiny_model(base / "words", shape=Shape(), seed=0, texts=[repository / "data/demo/pretrain.jsonl"])
    make_tiny_model(base / "model", shape=SHAPE, seed=0, tokenizer=base / "words")
    return base / "model"


def steps(repository: Path, folder: Path, loader: str, *variants: str, limit: int = 0) -> list[dict]:
    """Load, and compute a step, with each of `variants`, all in one process.

    Args:
        limit: bytes of the card that loading may take; 0 for all of it.
    """
    command = [sys.executable, "-c", STEPS, loader, str(folder), str(limit), *variants]
    search_path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": search_path}
    ended = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.parametrize("loader", ["vanilla", "unsloth"])
def test_they_never_are_on_the_card(repository: Path, folder: Path, loader: str) -> None:
    found = steps(repository, folder, loader, *VARIANTS)
    first, on_card, *others = found
    # A matrix that is still there from the model before would not show in what the next one takes.
    assert max(result["left"] for result in found) < MATRIX
    # Beside weights Unsloth has 68 MiB in this process, cuBLAS's workspaces most of them.
    assert first["peak"] < MATRIX, "the first load of a process"
    assert on_card["peak"] - on_card["left"] > 2 * MATRIX, "else the difference shows nothing"
    for keys, host in zip(VARIANTS, found, strict=True):
        print(f"{loader}, {keys}: peak {host['peak'] / 2**20:.0f} MiB after {host['left'] / 2**20:.0f}, {host['loss']}")
        if not keys:
            continue
        assert abs(host["loss"] - on_card["loss"]) <= TOLERANCE
        assert host["gradient"] == pytest.approx(on_card["gradient"], rel=0.02)
        assert not host["hooked"] and "cpu" not in host["map"]
        assert not [notice for notice in host["notices"] if "moved to main memory afterwards" in notice]
    for keys, host in zip(VARIANTS[2:], others, strict=True):
        difference = (on_card["peak"] - on_card["left"]) - (host["peak"] - host["left"])
        assert difference == pytest.approx(len(keys.split()) * MATRIX, rel=0.05), host


def test_embedding_stays_on_a_card_that_is_nearly_full(repository: Path, folder: Path) -> None:
    # Left to itself, Unsloth moves it to main memory where less than 290 MiB are left for a step of this model.
    (result,) = steps(repository, folder, "unsloth", "", limit=2 * MATRIX + 200 * 2**20)
    assert result["embedding"] == "cuda"
