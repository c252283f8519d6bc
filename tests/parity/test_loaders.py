"""Both loaders start equal: the same adapter, the same 4-bit layers, the same loss and gradients.

Unsloth patches its process, so each loader runs in one of its own. On a CPU this shows that we call both alike; of
Unsloth's kernels it says nothing, so the same test runs on a GPU too, where the tolerance is that of 16-bit arithmetic.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from component.models.tiny import Shape, make_tiny_model
from component.models.unsloth_import import WRITERS

pytestmark = pytest.mark.skipif(find_spec("unsloth") is None, reason="Unsloth is not installed")

#: Largest difference between the loaders, relative to the largest value. float32 on a CPU: measured 0 (bit-equal).
CPU_TOLERANCE = 1e-6
#: bfloat16 on a GPU: eight bits of mantissa.
#: Share of a gradient tensor's largest value. Seen on an H200 in bf16: 0.025 where that value is 0.012.
GPU_TOLERANCE = 5e-2

LOAD = """
import sys
loader, folder, output, device, *modes = sys.argv[1:]
from component.config.schema import AdapterSection, ModelSection
from component.pipeline.choose_loader import choose_loader
from component.registry import LOADERS
from component.runtime.hardware import detect_hardware

use_unsloth = "require" if loader == "unsloth" else False
model = ModelSection(model_name_or_path=folder, max_seq_length=64, use_unsloth=use_unsloth)
hardware = detect_hardware(use_cpu=device == "cpu")
choice = choose_loader(model, "sft", hardware)
assert choice.got == loader, choice
if loader == "unsloth":
    from component.models.unsloth_import import import_unsloth
    import_unsloth(model, hardware)
from dataclasses import replace
import torch
from component.models.precision import resolve_precision
from component.models.quantization import four_bit_layers
from component.models.tokenizer import load_tokenizer

scored = []
if loader == "unsloth":
    from unsloth_zoo.fused_losses import fused_linear, unsloth_fused_ce_loss
    make_scores = fused_linear._logits_into

    def noting(hidden, weight, *others):
        scored.append(hidden.shape[0] * weight.shape[0])
        return make_scores(hidden, weight, *others)

    fused_linear._logits_into = noting

def compute_loss(hidden, weight, labels, num_items):
    # Unsloth's loss as its models call it: value, gradient, and tokens that got scores.
    scored.clear()
    hidden = hidden.clone().requires_grad_()
    loss = unsloth_fused_ce_loss(
        trainer=None, hidden_states=hidden, lm_head_weight=weight, lm_head_bias=None, labels=labels, mask=None,
        n_items=num_items, scaling=None, target_gb=None, torch_compile=True,
        logit_softcapping=0, logit_scale_multiply=0, logit_scale_divide=0, shift_labels=True,
    )
    loss.backward()
    return loss.item(), hidden.grad[0].cpu(), sum(scored) / weight.shape[0]

def describe_loss():
    # Of all tokens of a row, with and without the number to divide by, and of the learned ones and one more.
    from component.trainers.chunked_loss import predicted_positions
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(1, 64, 32, generator=generator), torch.randn(100, 32, generator=generator)
    labels = torch.randint(0, 100, (1, 64), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.4] = -100
    positions = predicted_positions(labels)
    few = torch.cat([labels.new_full((1,), -100), labels[0, positions + 1]])[None].to(hardware.kind)
    rows = torch.cat([hidden[0, positions], hidden[0, :1]])[None].to(hardware.kind)
    hidden, weight, labels = hidden.to(hardware.kind), weight.to(hardware.kind), labels.to(hardware.kind)
    number = torch.tensor(len(positions), device=hardware.kind)
    return {
        "positions": positions,
        "all": compute_loss(hidden, weight, labels, number),
        "uncounted": compute_loss(hidden, weight, labels, None),
        "learned": compute_loss(rows, weight, few, number),
    }

def load(model):
    return LOADERS.get(loader)(
        model,
        AdapterSection(lora_rank=8, lora_alpha=16),
        tokenizer=load_tokenizer(model).tokenizer,
        precision=resolve_precision(model, hardware),
        hardware=hardware,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )

def trained_of(loaded):
    return {name: parameter for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}

def describe_new_rows():
    # What is trained beside new tokens: by PEFT, after Unsloth's preparation for a GPU, and where it does that itself.
    import unsloth
    from unsloth_zoo.training_utils import prepare_model_for_training
    with_rows = replace(model, train_mode="lora", new_tokens=["<tool>"])
    loaded = load(with_rows)
    names = [sorted(trained_of(loaded))]
    prepare_model_for_training(loaded.model)
    names.append(sorted(trained_of(loaded)))
    attach = unsloth.FastLanguageModel.get_peft_model
    unsloth.FastLanguageModel.get_peft_model = lambda *args, **keys: prepare_model_for_training(attach(*args, **keys))
    names.append(sorted(trained_of(load(with_rows))))
    unsloth.FastLanguageModel.get_peft_model = attach
    return names

def describe(model):
    scored.clear()
    loaded = load(model)
    trained = trained_of(loaded)
    initial = {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}
    torch.manual_seed(0)
    for name in sorted(trained):
        if "lora_B" in name:  # zero at first: nothing of the adapter would show
            with torch.no_grad():
                trained[name].copy_(torch.randn(trained[name].shape) * 0.02)
    ids = (torch.arange(48).reshape(2, 24) * 7 % 200 + 10).to(hardware.kind)
    labels = ids.clone()
    labels[:, :8] = -100
    dtype = getattr(torch, loaded.got["compute_dtype"])
    with torch.autocast(hardware.kind, dtype=dtype, enabled=dtype is not torch.float32):
        loss = loaded.model(input_ids=ids, labels=labels, use_cache=False).loss
    loss.backward()
    vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
    return {
        "initial": initial,
        "scored": sum(scored) / vocabulary,
        "loss": loss.detach().cpu().float(),
        "gradients": {name: parameter.grad.cpu() for name, parameter in trained.items()},
        "four_bit": sorted(name.split("base_model.model.")[-1] for name in four_bit_layers(loaded.model)),
        "targets": sorted(loaded.peft_config.target_modules) if loaded.peft_config else None,
        "vocabulary": vocabulary,
        "notices": loaded.notices,
        "got": dict(loaded.got),
    }

results = {mode: describe(replace(model, train_mode=mode)) for mode in modes}
if loader == "unsloth":
    results |= {"loss": describe_loss(), "new rows": describe_new_rows()}
torch.save(results, output)
print("unsloth" in sys.modules)
"""
MODES = ("qlora", "lora", "full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("loaders")
    (base / "text.txt").write_text("pack my box with five dozen liquor jugs\n" * 4, encoding="utf-8")
    shape = Shape(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, max_position_embeddings=128
    )
    make_tiny_model(base / "model", shape=shape, seed=0, texts=[base / "text.txt"])
    return base / "model"


def load_both(
    folder: Path, tmp_path: Path, repository: Path, run_python: Callable[..., Any], *, device: str, modes: Sequence[str]
) -> list[dict]:
    """What each loader gives, by mode: first vanilla, then Unsloth."""
    import torch

    results = []
    run_new = partial(subprocess.run, capture_output=True, text=True)
    for loader, start in (("vanilla", run_python), ("unsloth", run_new)):
        output = tmp_path / f"{loader}.pt"
        search_path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
        finished = start(
            [sys.executable, "-c", LOAD, loader, str(folder), str(output), device, *modes],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": search_path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            timeout=300,
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        assert finished.stdout.strip() == str(loader == "unsloth"), "imported where it should not be, or not quiet"
        results.append(torch.load(output, weights_only=False))
    assert not (tmp_path / "unsloth_compiled_cache").exists()
    return results


def assert_equal_start(vanilla: dict, unsloth: dict, *, tolerance: float) -> None:
    import torch

    assert vanilla["initial"].keys() == unsloth["initial"].keys()
    assert all(torch.equal(vanilla["initial"][name], unsloth["initial"][name]) for name in vanilla["initial"])
    for key in ("four_bit", "targets", "vocabulary"):
        assert vanilla[key] == unsloth[key], key
    torch.testing.assert_close(unsloth["loss"], vanilla["loss"], rtol=tolerance, atol=tolerance)
    for name, expected in vanilla["gradients"].items():
        difference = (unsloth["gradients"][name] - expected).abs().max()
        assert difference <= tolerance * expected.abs().max(), name


@pytest.fixture(scope="module")
def on_cpu(folder, tmp_path_factory, repository, run_python) -> list[dict]:
    return load_both(folder, tmp_path_factory.mktemp("cpu"), repository, run_python, device="cpu", modes=MODES)


@pytest.mark.parametrize("mode", MODES)
def test_equal_start_on_a_cpu(on_cpu, mode) -> None:
    vanilla, unsloth = (result[mode] for result in on_cpu)
    assert_equal_start(vanilla, unsloth, tolerance=CPU_TOLERANCE)
    assert len(vanilla["four_bit"]) == (14 if mode == "qlora" else 0)
    assert (vanilla["got"]["loader"], unsloth["got"]["loader"]) == ("vanilla", "unsloth")
    assert unsloth["notices"] == ()


def test_unsloths_loss_scores_learned_tokens_alone(on_cpu) -> None:
    """So it needs no rows chosen for it: its numbers are the same to the last bit."""
    import torch

    loss = on_cpu[1]["loss"]
    positions, (value, gradient, num_scored) = loss["positions"], loss["all"]
    assert num_scored == len(positions) < gradient.shape[0]
    assert value == loss["uncounted"][0] == loss["learned"][0]
    assert loss["learned"][2] == num_scored
    assert torch.equal(gradient[positions], loss["learned"][1][:-1])
    gradient[positions] = 0
    assert not gradient.any()


def test_rows_of_new_tokens_stay_trained(on_cpu) -> None:
    asked, prepared, ours = on_cpu[1]["new rows"]
    rows = {name for name in asked if "trainable_tokens_delta" in name}
    assert rows
    assert set(prepared) == set(asked) - rows, "Unsloth freezes no rows any more: unfreeze_adapter can leave them alone"
    assert ours == asked


def test_what_writes_embeddings_to_files_is_still_called_so() -> None:
    """Where Unsloth's loader for GPUs, which needs triton, is read and not imported; tests/gpu looks for the files."""
    spec = find_spec("unsloth")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "models/llama.py").read_text(encoding="utf-8")
    assert all(f"{name}(model, temporary_location)" in source for name in WRITERS)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["qlora", "lora"])
def test_equal_start_on_a_gpu(folder, tmp_path, repository, run_python, mode) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    vanilla, unsloth = load_both(folder, tmp_path, repository, run_python, device="cuda", modes=[mode])
    assert unsloth[mode]["scored"] == 2 * 16, "of 2 rows of 24 tokens the first 8 are not learned"
    assert_equal_start(vanilla[mode], unsloth[mode], tolerance=GPU_TOLERANCE)
