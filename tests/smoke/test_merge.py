"""script/merge_lora.py: the merged model computes what the adapter computed, and is a model like any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from component.config.errors import MachineError, UserError
from component.models.inference import load_for_inference
from component.models.model_files import find_source
from component.pipeline import merge as merge_module
from component.pipeline import run
from component.pipeline.answer import load_answerer, score_exact_match
from component.pipeline.merge import merge

IDS = torch.tensor([[5, 6, 7, 200, 30, 31, 32, 9, 9, 4]])
#: Recipes of an sft run whose adapter is merged into the weights that it was trained on.
EXACT: dict[str, dict[str, Any]] = {
    "lora": {"train_mode": "lora"},
    "rslora": {"train_mode": "lora", "use_rslora": True},
    "dora": {"train_mode": "lora", "use_dora": True},
    "pissa": {"train_mode": "lora", "init_lora_weights": "pissa"},
    "embeddings": {"train_mode": "lora", "modules_to_save": ["embed_tokens"]},
    "a norm": {"train_mode": "lora", "modules_to_save": ["input_layernorm"]},
    "new tokens": {"train_mode": "lora", "new_tokens": ["<tool>", "nine green"]},
    "rope": {"train_mode": "lora", "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "4 bit": {"train_mode": "qlora"},
    "4 bit dora": {"train_mode": "qlora", "use_dora": True, "bnb_4bit_use_double_quant": False},
}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def train(settings: dict[str, Any], folder: Path, **changes: Any) -> Path:
    run({**settings, "max_steps": 2, "save_strategy": "no", **changes, "output_dir": str(folder)})
    return folder


@pytest.fixture(scope="module")
def qlora_run(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_settings, tmp_path_factory.mktemp("merge") / "qlora", train_mode="qlora")


@pytest.mark.parametrize("recipe", EXACT.values(), ids=EXACT)
def test_merged_logits_are_those_of_the_adapter(
    recipe: dict[str, Any], tiny_settings: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    folder = train(tiny_settings, tmp_path / "run", **recipe)
    base_weights = "dequantized" if recipe["train_mode"] == "qlora" else "original"
    result = merge(str(folder), base_weights=base_weights)
    assert result.folder == tmp_path / "run-merged" and result.dtype == "float32"
    expected = logits(load_for_inference(str(folder), device="cpu")[0])
    merged = AutoModelForCausalLM.from_pretrained(result.folder)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    change = logits(base) - expected[..., : base.config.vocab_size]
    assert change.abs().max() > 0.05, "the adapter does nothing, so that merging it proves nothing"
    assert type(merged.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert not (result.folder / "adapter_config.json").exists() and not hasattr(merged.config, "quantization_config")


def test_a_reward_model_keeps_its_head(task_settings: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    folder = train(task_settings["reward"], tmp_path / "run", train_mode="lora")
    merged = AutoModelForSequenceClassification.from_pretrained(merge(str(folder)).folder)
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    base = AutoModelForSequenceClassification.from_pretrained(
        find_source(str(folder)).base, num_labels=1, pad_token_id=pad
    )
    torch.testing.assert_close(logits(merged), logits(PeftModel.from_pretrained(base, folder)), rtol=1e-4, atol=1e-5)
    assert merged.config.num_labels == 1 and merged.config.pad_token_id == pad
    # It is where the next run of the task starts.
    again = run({**task_settings["reward"], "model_name_or_path": str(tmp_path / "run-merged"), "train_mode": "lora",
                 "max_steps": 1, "output_dir": str(tmp_path / "more")})  # fmt: skip
    assert again.global_step == 1


def test_a_head_that_was_trained_apart_from_the_embeddings(tiny_model: Path, tmp_path: Path) -> None:
    """An adapter made elsewhere, of a head that the base shares with its embeddings: the merged model has two."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"]),
    )
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "modules_to_save" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    result = merge(str(tmp_path / "adapter"), output=str(tmp_path / "merged"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-5)
    assert "one and are two now" in result.notices[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.generation_config.eos_token_id and tokenizer.chat_template


def test_tokens_that_were_trained_alone(tiny_model: Path, tmp_path: Path) -> None:
    """PEFT's trainable_token_indices: two rows of the shared embeddings."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], trainable_token_indices=[5, 200]),
    )
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    merge(str(tmp_path / "adapter"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter-merged")
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-5)
    assert merged.config.tie_word_embeddings


def test_a_quantized_run_on_the_base_as_it_was(qlora_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The default: the adapter on the base's own weights, which the output says is not what was trained."""
    result = merge(str(qlora_run), output=str(tmp_path / "merged"))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), qlora_run)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-5)
    trained = logits(load_for_inference(str(qlora_run), device="cpu")[0])
    assert (logits(merged) - trained).abs().max() > 1e-3
    (notice,) = result.notices
    assert "trained on 4-bit nf4 weights" in notice and "--base dequantized" in notice
    # NF4 in blocks of 64 leaves about 9 % of the norm of normally distributed weights (QLoRA, appendix E).
    error = float(notice.partition("differ by ")[2].partition("%")[0])
    assert 8 < error < 11


def test_eight_bit(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """LLM.int8() rounds activations too, which no merged model does: near and not equal."""
    folder = train(tiny_settings, tmp_path / "run", train_mode="qlora", quantization="int8")
    result = merge(str(folder))
    assert "8-bit weights" in result.notices[0]
    near = merge(str(folder), output=str(tmp_path / "near"), base_weights="dequantized").folder
    expected = logits(load_for_inference(str(folder), device="cpu")[0])
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(near)), expected, rtol=0.05, atol=0.05)


def test_a_base_that_is_stored_quantized(tiny_settings: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    from component.models.quantization import build_4bit_config, prepare_four_bit_layers

    settings = build_4bit_config(quant_type="nf4", use_double_quant=True, compute_dtype="float32")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=settings)
    prepare_four_bit_layers(base, compute_dtype="float32")
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
    folder = train(tiny_settings, tmp_path / "run", train_mode="qlora", model_name_or_path=str(tmp_path / "base"))
    result = merge(str(folder))
    assert "stored quantized (bitsandbytes 4-bit)" in result.notices[0]
    expected = logits(load_for_inference(str(folder), device="cpu")[0])
    merged = AutoModelForCausalLM.from_pretrained(result.folder)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_and_shards(qlora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("component.artifacts.final.MAX_SHARD_SIZE", "100KB")
    result = merge(str(qlora_run), output=str(tmp_path / "merged"), dtype="bfloat16")
    shards = sorted((tmp_path / "merged").glob("model-*.safetensors"))
    assert len(shards) > 1 and (tmp_path / "merged" / "model.safetensors.index.json").is_file()
    weights = [value for shard in shards for value in load_file(shard).values()]
    assert {value.dtype for value in weights} == {torch.bfloat16}
    assert sum(value.numel() * 2 for value in weights) == result.num_bytes
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_command_and_what_becomes_of_its_result(
    qlora_run: Path, tiny_settings: dict[str, Any], repository: Path, tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    """Merged, asked, evaluated, and trained on."""
    merged = str(tmp_path / "merged")
    options = ("--model", str(qlora_run), "--output", merged, "--base", "dequantized")
    finished = run_python([sys.executable, "script/merge_lora.py", *options], cwd=repository)
    assert (finished.returncode, finished.stdout) == (0, f"{merged}: float32, 0.00 GiB\n"), finished.stderr
    record = json.loads((tmp_path / "merged" / "merge.json").read_text(encoding="utf-8"))
    assert (record["adapter"], record["base_weights"]) == (str(qlora_run), "dequantized")
    stops = [json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
             for folder in (qlora_run, tmp_path / "merged")]  # fmt: skip
    assert stops[0] == stops[1]
    lines = (repository / "data/demo/held_out.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "questions.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    data = [str(tmp_path / "questions.jsonl")]
    one, other = (
        score_exact_match(load_answerer(name, use_cpu=True), data, max_new_tokens=3)
        for name in (str(qlora_run), merged)
    )
    assert one == other and one.num_questions == 3
    again = train(tiny_settings, tmp_path / "more", model_name_or_path=merged, train_mode="lora")
    assert find_source(str(again)).base == merged


def adapter_without_base(folder: Path) -> str:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = str(folder / "gone")
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return "gone, which is no folder"


def half_an_adapter(folder: Path) -> str:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return "cannot be loaded"


def an_adapter_that_lacks_layers(folder: Path) -> str:
    weights = load_file(folder / "adapter_model.safetensors")
    weights = {name: value for name, value in weights.items() if "q_proj" not in name}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return "lacks weights of layers"


def an_adapter_that_diverged(folder: Path) -> str:
    weights = load_file(folder / "adapter_model.safetensors")
    next(value for name, value in weights.items() if "lora_B" in name).fill_(torch.nan)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return "cannot be merged: NaNs detected"


def no_weights(folder: Path) -> str:
    (folder / "adapter_model.safetensors").unlink()
    return "has no adapter_model.safetensors"


@pytest.mark.parametrize(
    "damage",
    [adapter_without_base, half_an_adapter, an_adapter_that_lacks_layers, an_adapter_that_diverged, no_weights],
    ids=lambda damage: damage.__name__,
)
def test_damaged_adapters(damage: Callable[[Path], str], qlora_run: Path, tmp_path: Path) -> None:
    shutil.copytree(qlora_run, tmp_path / "run")
    words = damage(tmp_path / "run")
    with pytest.raises(UserError) as raised:
        merge(str(tmp_path / "run"))
    assert raised.value.exit_code == 2 and words in str(raised.value) and "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_merged(qlora_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    shutil.copytree(qlora_run, tmp_path / "adapter", ignore=shutil.ignore_patterns("train_args.yaml"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": str(tiny_model)}, "is a whole model and no adapter"),
        ({"name": str(tmp_path / "full")}, "has no config.json or adapter_config.json"),
        ({"name": str(tmp_path / "nowhere")}, "is no folder"),
        ({"name": str(qlora_run), "output": str(tmp_path / "full")}, "is not empty"),
        ({"name": str(qlora_run), "output": str(tmp_path / "file")}, "is a file"),
        ({"name": str(qlora_run), "output": str(tmp_path / "file" / "below")}, "cannot be written into"),
        ({"name": str(qlora_run), "output": str(qlora_run / "checkpoint-7")}, "is the name of a checkpoint in a run"),
        ({"name": str(qlora_run), "output": "~nouser/x"}, "--output: Could not determine home directory"),
        ({"name": str(tmp_path / "adapter"), "base_weights": "dequantized"}, "nothing in"),
    ]
    for arguments, words in cases:
        with pytest.raises(UserError) as raised:
            merge(**arguments)
        assert words in str(raised.value) and raised.value.exit_code == 2
        assert "\n" not in str(raised.value)


def test_a_checkpoint_is_merged_beside_its_run_folder(qlora_run: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(qlora_run, run_folder / "checkpoint-1", ignore=shutil.ignore_patterns("train_args.yaml"))
    shutil.copyfile(qlora_run / "train_args.yaml", run_folder / "train_args.yaml")
    assert merge(str(run_folder / "checkpoint-1")).folder == tmp_path / "run-checkpoint-1-merged"
    assert sorted(path.name for path in run_folder.iterdir()) == ["checkpoint-1", "train_args.yaml"]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_generation_config(qlora_run: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(qlora_run, tmp_path / "run")
    (tmp_path / "run" / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=r"^--model .*/run: its generation_config.json cannot be loaded: .*mend that"):
        merge(str(tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_full_disk(qlora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(MachineError, match=r"0\.0 GiB are free there and the model takes"):
        merge(str(qlora_run), output=str(tmp_path / "merged"))
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_a_reward_adapter(
    task_settings: dict[str, dict[str, Any]],
    tiny_model: Path,
    repository: Path,
    tmp_path: Path,
    train_environment: dict[str, str],
) -> None:
    """Nothing of the head that the base lacks and the adapter brings; a weight without a place is told of."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({**weights, "extra.weight": torch.ones(2)}, base / "model.safetensors", metadata={"format": "pt"})
    folder = train({**task_settings["reward"], "model_name_or_path": str(base)}, tmp_path / "run", train_mode="lora")
    # Of a new interpreter, for the libraries put up handlers when they are imported.
    finished = subprocess.run(
        [sys.executable, "script/merge_lora.py", "--model", str(folder)],
        cwd=repository, env=train_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    notice, _ = finished.stdout.splitlines()
    assert notice.startswith("notice: ") and notice.endswith("they are ignored: extra.weight"), notice
    assert (finished.returncode, finished.stderr) == (0, "")
