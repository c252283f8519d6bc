"""A packed row trains as its samples do alone: losses and gradients in float32 on a CPU; the probe sees a leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from component.artifacts.metrics import read_metrics
from component.config.errors import UserError
from component.data.collators import PackingCollator
from component.data.dataset import PackedDataset
from component.data.packing import pack
from component.data.rows import Prepared, Source
from component.models.packed_attention import probe_leak, why_not_packable
from component.models.varlen_attention import register_varlen
from component.pipeline import run

#: float32 sums in another order: nats, and gradients relative to the largest of their tensor.
TOLERANCE = 1e-6
VOCABULARY = 256
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.1, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "llama": ("Llama", SIZES),
    "qwen2": ("Qwen2", {key: value for key, value in SIZES.items() if key != "head_dim"}),
    "qwen3": ("Qwen3", SIZES),
    "gemma2": ("Gemma2", {**SIZES, "sliding_window": 16}),
}
LENGTHS = (17, 40, 3, 25, 64, 2, 31, 9)


def make_model(family: str, sizes: dict[str, Any], attention: str = "sdpa") -> PreTrainedModel:
    register_varlen(None)  # float32 on a CPU has no kernel
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, attn_implementation=attention)
    return getattr(transformers, f"{family}ForCausalLM")(config).float().train()


def make_samples() -> list[Prepared]:
    """Unequal lengths, one beyond the sliding window; the first answer of every third begins with the sample."""
    generator = torch.Generator().manual_seed(1)
    samples = []
    for number, length in enumerate(LENGTHS):
        ids = tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())
        start = 0 if number % 3 == 0 else length // 3
        samples.append(Prepared(ids, ((start, length),), Source("f", number + 1)))
    return samples


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("packs_per_row", [1, 2, 8])
@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_separate(name: str, attention: str, packs_per_row: int) -> None:
    """Each sample alone, against micro-batches of one and more packs whose gradients add up."""
    model, samples = make_model(*MODELS[name], attention), make_samples()
    num_items = sum(sample.num_supervised_tokens for sample in samples)
    expected = 0.0
    for sample in samples:
        ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels()])
        loss = model(input_ids=ids, labels=labels, num_items_in_batch=num_items, use_cache=False).loss
        loss.backward()
        expected += loss.item()
    expected_gradients = gradients(model)

    dataset = PackedDataset(samples, pack(LENGTHS, capacity=64))
    assert 2 < len(dataset) < len(samples)
    total, counted = 0.0, 0
    for start in range(0, len(dataset), packs_per_row):
        rows = range(start, min(start + packs_per_row, len(dataset)))
        batch = PackingCollator()([dataset[row] for row in rows])
        counted += int(batch["labels"][..., 1:].ne(-100).sum())
        loss = model(**batch, num_items_in_batch=num_items, use_cache=False).loss
        loss.backward()
        total += loss.item()
    assert counted == num_items
    assert total == pytest.approx(expected, abs=TOLERANCE)
    for key, gradient in gradients(model).items():
        scale = expected_gradients[key].abs().max()
        assert (gradient - expected_gradients[key]).abs().max() <= 10 * TOLERANCE * scale + TOLERANCE, key


@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
@pytest.mark.parametrize("name", MODELS)
def test_the_probe_passes_where_samples_stay_apart(name: str, attention: str) -> None:
    model = make_model(*MODELS[name], attention)
    state = torch.get_rng_state()
    probe = probe_leak(model, range(1, 200), compute_dtype="float32")
    assert torch.equal(torch.get_rng_state(), state)
    assert (probe.leaks, probe.change) == (False, 0.0)
    assert probe.joined_change > 100 * probe.tolerance, "samples that are joined must influence each other"


def test_the_probe_sees_leaks() -> None:
    """An attention mask, a cache or an architecture without positions of its own, each of which joins the samples."""
    model = make_model(*MODELS["llama"])
    forward = model.forward
    model.forward = lambda **inputs: forward(**{**inputs, "use_cache": True})
    assert probe_leak(model, range(1, 200), compute_dtype="float32").leaks
    model.forward = lambda **inputs: forward(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
    assert probe_leak(model, range(1, 200), compute_dtype="float32").leaks

    config = transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4)
    bloom = transformers.BloomForCausalLM(config).float().train()
    assert why_not_packable(config.to_dict()) == (
        "model family 'bloom': ALiBi takes positions from the row, not from the sample"
    )
    forward_bloom = bloom.forward
    bloom.forward = lambda position_ids, **inputs: forward_bloom(**inputs)  # it takes none
    assert probe_leak(bloom, range(1, 200), compute_dtype="float32").leaks


@pytest.fixture(scope="module")
def one_step(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """All rows in one step of plain gradient descent."""
    return {
        **tiny_settings,
        "train_mode": "full",
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
        "per_device_train_batch_size": 22,
        "gradient_accumulation_steps": 1,
    }


def test_a_run_with_packing_equals_one_without(one_step, conversations, tmp_path) -> None:
    """The same rows in one step: the loss, the weights (seen in the evaluation loss) and the counts are equal."""
    settings = {**one_step, "eval_file": str(conversations)}
    run({**settings, "output_dir": str(tmp_path / "separate")})
    expected = read_metrics(tmp_path / "separate")
    for batch, accumulation in ((22, 1), (1, 22), (3, 8)):
        folder = tmp_path / f"{batch}x{accumulation}"
        shape = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        result = run({**settings, **shape, "packing": "auto", "output_dir": str(folder)})
        assert result.global_step == 1
        packing = json.loads((folder / "run.json").read_text(encoding="utf-8"))["loader"]["details"]["packing"]
        assert (packing["asked"], packing["got"]) == ("auto", True)
        assert packing["attention"] == "SDPA with a dense mask"
        assert packing["attention_reason"].startswith("no flash_attention_2 or varlen: it needs a CUDA GPU")
        assert 1 < packing["num_packs"] < 22 and 0.5 < packing["fill"] <= 1
        for seen, wanted in zip(read_metrics(folder), expected, strict=True):
            assert seen.get("supervised_tokens") == wanted.get("supervised_tokens")
            assert seen.get("total_tokens") == wanted.get("total_tokens")
            for key in {"loss", "eval_loss"} & wanted.keys():
                assert seen[key] == pytest.approx(wanted[key], abs=2 * TOLERANCE), (batch, key)
        assert result.metrics["padded_tokens_per_second"] == result.metrics["real_tokens_per_second"]


@pytest.fixture(scope="module")
def bloom_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bloom") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    config = transformers.BloomConfig(vocab_size=len(tokenizer), hidden_size=64, n_layer=2, n_head=4)
    transformers.BloomForCausalLM(config).save_pretrained(folder)
    return folder


def test_packing_for_bloom(one_step, bloom_folder, tmp_path) -> None:
    """true is refused before anything is loaded, auto trains without and says why."""
    settings = {**one_step, "model_name_or_path": str(bloom_folder), "output_dir": str(tmp_path / "run")}
    reason = "model family 'bloom': ALiBi takes positions from the row, not from the sample"
    with pytest.raises(UserError) as raised:
        run({**settings, "packing": True})
    assert str(raised.value) == f"packing: true would mix samples: {reason}; use packing: auto or false"
    assert not (tmp_path / "run").exists()
    run({**settings, "packing": "auto"})
    manifest = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert manifest["loader"]["details"]["packing"]["reason"] == reason
    assert f"packing: auto is off: {reason}" in manifest["notices"]
