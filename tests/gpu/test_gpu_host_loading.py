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

STEP = """
import json, sys
loader, folder, keys = sys.argv[1], sys.argv[2], sys.argv[3].split()
from component.config.schema import AdapterSection, ModelSection
from component.pipeline.choose_loader import choose_loader
from component.registry import LOADERS
from component.runtime.hardware import detect_hardware

model = ModelSection(
    model_name_or_path=folder, max_seq_length=64, use_unsloth="require" if loader == "unsloth" else False, bf16=True,
    train_mode="qlora", **dict.fromkeys(keys, True),
)
hardware = detect_hardware()
assert choose_loader(model, "sft", hardware).got == loader
if loader == "unsloth":
    from component.models.unsloth_import import import_unsloth
    import_unsloth(model, hardware)
import torch
from component.models.precision import resolve_precision
from component.models.tokenizer import load_tokenizer

torch.cuda.reset_peak_memory_stats()
if len(sys.argv) > 4:
    torch.cuda.set_per_process_memory_fraction(int(sys.argv[4]) / torch.cuda.get_device_properties(0).total_memory)
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
print("RESULT", json.dumps({
    "peak": peak, "loss": loss.item(), "gradient": gradient, "hooked": hooked, "notices": list(loaded.notices),
    "map": str(getattr(base, "hf_device_map", None)), "embedding": base.get_input_embeddings().weight.device.type,
}))
"""


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("model")
    make_tiny_model(base / "words", shape=Shape(), seed=0, texts=[repository / "data/demo/pretrain.jsonl"])
    make_tiny_model(base / "model", shape=SHAPE, seed=0, tokenizer=base / "words")
    return base / "model"


def step(repository: Path, folder: Path, loader: str, keys: str, *limit: int) -> dict:
    command = [sys.executable, "-c", STEP, loader, str(folder), keys, *map(str, limit)]
    search_path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": search_path}
    ended = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.parametrize("loader", ["vanilla", "unsloth"])
def test_they_never_are_on_the_card(repository: Path, folder: Path, loader: str) -> None:
    on_card = step(repository, folder, loader, "")
    assert on_card["peak"] > 2 * MATRIX, "else the difference shows nothing"
    for keys, num_left in (("offload_embedding offload_head", 0), ("offload_embedding", 1), ("offload_head", 1)):
        host = step(repository, folder, loader, keys)
        print(f"{loader}, {keys}: peak {host['peak'] / 2**20:.0f} MiB of {on_card['peak'] / 2**20:.0f}, {host['loss']}")
        # Beside weights Unsloth has 68 MiB in this process, cuBLAS's workspaces most of them.
        assert on_card["peak"] - host["peak"] == pytest.approx((2 - num_left) * MATRIX, rel=0.05), host
        assert abs(host["loss"] - on_card["loss"]) <= TOLERANCE
        assert host["gradient"] == pytest.approx(on_card["gradient"], rel=0.02)
        assert not host["hooked"] and "cpu" not in host["map"]
        assert not [notice for notice in host["notices"] if "moved to main memory afterwards" in notice]


def test_embedding_stays_on_a_card_that_is_nearly_full(repository: Path, folder: Path) -> None:
    # Left to itself, Unsloth moves it to main memory where less than 290 MiB are left for a step of this model.
    assert step(repository, folder, "unsloth", "", 2 * MATRIX + 200 * 2**20)["embedding"] == "cuda"
