"""script/plan.py predicts from a config alone: quickly, without torch, for every shipped config that it can."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.models import preparing
from component.pipeline import prepare as prepare_module
from component.pipeline.describe import describe_check, describe_run
from component.pipeline.plan_facts import plan_facts
from component.pipeline.plan_inputs import imagined_hardware, named_gpu
from component.pipeline.plan_run import PLANNED_NUMBERS, compare_cards, plan_config
from component.pipeline.prepare import prepare
from component.pipeline.show_plan import PlanOutputs, plan_text, show_plan
from component.planning.gpus import GPUS

LLAMA = "train_args/sft/qlora/llama3-8b.json"


@pytest.fixture(autouse=True)
def _at_the_root(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)


def test_door(repository: Path, tmp_path: Path) -> None:
    picture, result = tmp_path / "plan.png", tmp_path / "plan.json"
    code = (
        "import runpy, sys, time\nbegan = time.process_time()\n"
        "try:\n    runpy.run_path('script/plan.py', run_name='__main__')\n"
        "finally:\n    print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])\n"
        "    print(time.process_time() - began)"
    )
    arguments = ["--train_args_file", LLAMA, "--gpu", "h200", "--json", str(result)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=repository, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *_, heavy, seconds = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < 2
    plan = json.loads(result.read_text())
    assert sum(plan["parts_bytes"].values()) == pytest.approx(plan["peak_allocated_bytes"], rel=1e-6)
    assert plan["verdict"] == "fits" and plan["tokens_per_second"] > 9000
    list(show_plan(load_config(LLAMA), "h200", PlanOutputs(png=picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_door_says_what_is_ignored_as_check_does(repository: Path) -> None:
    overrides = ["dequantize_base=auto", "evaluation_strategy=no"]
    config = ["--train_args_file", "train_args/sft/full/llama3.2-1b.json", *overrides]
    plan, check = (
        subprocess.run([sys.executable, *command, *config], cwd=repository, capture_output=True, text=True)
        for command in (["script/plan.py", "--gpu", "4090"], ["train.py", "--check"])
    )
    assert (plan.returncode, plan.stderr) == (check.returncode, check.stderr) == (0, "")
    *notices, _verdict = [line for line in check.stdout.splitlines() if not line.startswith("hint: ")]
    assert any(notice.startswith("command line: dequantize_base: ignored; train_mode full ") for notice in notices)
    assert plan.stdout.splitlines()[-len(notices) :] == [f"notice: {notice}" for notice in notices]


def test_shipped_configs(repository: Path) -> None:
    """All of the families that the planner knows are planned; the others are refused by name."""
    planned, refused = 0, {}
    for path in sorted((repository / "train_args").glob("*/*/*.json")):
        config = load_config(path)
        try:
            plan = plan_config(config, "h200").plan
        except UserError as error:
            refused[config.model.model_name_or_path] = str(error)
            continue
        planned += 1
        assert 0.5 * 2**30 < plan.memory.allocated < 1200 * 2**30, path
        assert (plan.time is None) is (config.model.task_type == "grpo"), path  # sampling is not predicted
    assert planned >= 60
    assert all("whose layers are not known to the planner" in message for message in refused.values())
    assert {name.partition("/")[0] for name in refused} == {
        "bigscience", "google", "mistralai", "openbmb", "Qwen", "zai-org",
    }  # fmt: skip


def test_what_fits_smaller_cards_is_what_it_says() -> None:
    """The advice, given as overrides, makes a config that fits by the planner's own account."""
    config = load_config("train_args/sft/full/smollm3-3b-base.json")
    planned = plan_config(config, "h200")
    advised = {card.name: card for card in compare_cards(planned.plan, config)}
    card = advised["A100 80 GB, 80 GiB"]
    assert card.verdict == "fits" and card.overrides == ()
    assert card.reserved_bytes == planned.plan.memory.reserved
    card = advised["L40S, 45 GiB"]
    assert card.verdict == "does not fit" and card.overrides
    again = plan_config(load_config("train_args/sft/full/smollm3-3b-base.json", list(card.overrides)), "l40s").plan
    assert again.verdict == "fits"
    assert again.memory.reserved == pytest.approx(card.reserved_bytes)


def test_the_plan_with_unsloth_is_that_of_its_loader() -> None:
    """Its fused adapters, norms and parts of the loss, not those of the vanilla run that is advised to take it."""
    file, vanilla = "train_args/sft/qlora/qwen2.5-14b.json", ["use_unsloth=false", "packing=false"]
    config = load_config(file, vanilla)
    (card,) = [card for card in compare_cards(plan_config(config, "h200").plan, config) if card.name == "T4, 15 GiB"]
    assert card.verdict == "does not fit" and card.overrides == ("use_unsloth=true",)
    again = plan_config(load_config(file, [*vanilla, *card.overrides]), "t4").plan
    assert again.verdict == "fits" and again.workload.has_fused_adapters
    assert again.memory.reserved == pytest.approx(card.reserved_bytes)
    assert again.time is not None and again.time.tokens_per_second == pytest.approx(card.tokens_per_second)


def test_what_a_large_card_had_room_for_is_undone_on_small_ones() -> None:
    keys = ["packing=true", "dequantize_base=true", "checkpoint_skip_layers=24", "global_batch_size=8"]
    keys += ["per_device_train_batch_size=8", "gradient_checkpointing=true"]
    config = load_config(LLAMA, keys)
    cards = {card.name.partition(",")[0]: card for card in compare_cards(plan_config(config, "h200").plan, config)}
    assert cards["H200 141 GB"].overrides == ()
    assert {"dequantize_base=false", "checkpoint_skip_layers=0"} <= set(cards["T4"].overrides)
    again = plan_config(load_config(LLAMA, [*keys, *cards["T4"].overrides]), "t4").plan
    assert again.verdict == "fits"
    limited = load_config(LLAMA, [*keys, "max_memory_gib=8"])
    cards = {card.name: card for card in compare_cards(plan_config(limited, "h200").plan, limited)}
    assert cards["H200 141 GB, 8 of 140 GiB"].verdict == "does not fit"
    title = "other cards, and overrides that fit max_memory_gib: 8 of their memory"
    assert plan_facts(plan_config(limited, "h200"), limited).cards_title == title


def test_the_smallest_cards_are_advised_to_save_memory_for_time() -> None:
    """Only where nothing else fits, and then it does."""
    tight = load_config(LLAMA, ["use_unsloth=true", "max_memory_gib=7.4"])
    (card, *_) = [card for card in compare_cards(plan_config(tight, "h200").plan, tight) if "H200" in card.name]
    assert card.overrides is not None and {"offload_embedding=true", "offload_head=true"} <= set(card.overrides)
    again = plan_config(load_config(LLAMA, ["use_unsloth=true", "max_memory_gib=7.4", *card.overrides]), "h200").plan
    assert again.verdict == "fits"
    assert again.memory.reserved == pytest.approx(card.reserved_bytes)


def test_no_more_is_advised_than_fits_a_card() -> None:
    """70B on an L40S: the embedding in main memory and shorter rows do, of five settings that save memory."""
    config = load_config("train_args/sft/qlora/llama3.1-70b.json")
    cards = {card.name: card for card in compare_cards(plan_config(config, "l40s").plan, config)}
    assert cards["L40S, 45 GiB"].overrides == ("offload_embedding=true", "max_seq_length=1024")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("per_device_train_batch_size=4", "per_device_train_batch_size=8"),
        ("max_seq_length=1024", "max_seq_length=4096"),
        ("gradient_checkpointing=true", "gradient_checkpointing=false"),
        ("quantization=int4", "quantization=int8"),
        ("train_mode=qlora", "train_mode=lora"),
        ("train_mode=lora", "train_mode=full"),
        ("optim=paged_adamw_32bit", "optim=adamw_8bit"),
        ("optim=adamw_8bit", "optim=adamw_torch_fused"),
        ("lora_rank=16", "lora_rank=128"),
        ("use_unsloth=true", "use_unsloth=false"),
    ],
)
def test_the_second_takes_more(first: str, second: str) -> None:
    less, more = (plan_config(load_config(LLAMA, [override]), "h200").plan.memory for override in (first, second))
    assert less.allocated < more.allocated


def test_without_a_card_time_and_verdict_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    planned = plan_config(load_config(LLAMA))
    assert planned.plan.verdict is None and planned.plan.time is None
    title = "plan for a GPU such as H200 141 GB, as there is none here, in bfloat16: predicted, nothing was loaded"
    assert plan_facts(planned, load_config(LLAMA)).heading == title
    assert ("card", "none here; name one with script/plan.py --gpu") in plan_facts(planned, load_config(LLAMA)).summary


def test_unknown_cards_and_models() -> None:
    said = "--gpu: no card is called '3060'; there are t4, .*, b200; for another .* --gpu 3090 max_memory_gib=12$"
    with pytest.raises(UserError, match=said):
        plan_config(load_config(LLAMA), "3060")
    with pytest.raises(UserError, match=r"did you mean a100-40 or a100-80\?"):
        plan_config(load_config(LLAMA), "A100")
    with pytest.raises(UserError, match="shape unknown offline.*use `hf download nobody/nothing config.json` where"):
        plan_config(load_config(LLAMA, ["model_name_or_path=nobody/nothing"]), "t4")
    with pytest.raises(UserError, match="and plans use no network; use a folder that holds its config.json"):
        plan_config(load_config(LLAMA, ["model_name_or_path=./nothing"]), "t4")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("v100-32", "V100 32 GB"),
        ("A100 80GB", "A100 80 GB"),
        ("a6000", "RTX A6000"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80 GB"),
        ("h100 80GB HBM3", "H100 80 GB"),
        *((name, gpu.title) for name, gpu in GPUS.items()),
        *((gpu.title, gpu.title) for gpu in GPUS.values()),
    ],
)
def test_names_that_people_give_to_cards(name: str, title: str) -> None:
    assert named_gpu(name).title == title


def test_cards_without_8_bit_floats() -> None:
    """A plan refuses what the run would refuse, and marks such cards beside others."""
    config = load_config(LLAMA, ["train_mode=lora", "fp8_base=true"])
    with pytest.raises(UserError, match="fp8_base: needs an NVIDIA GPU of compute capability 8.9 or more"):
        plan_config(config, "a100-80")
    cards = compare_cards(plan_config(config, "4090").plan, config)
    marked = [card.name.partition(",")[0] for card in cards if "without fp8_base" in (card.obstacle or "")]
    assert marked == ["T4", "RTX 3090", "A100 80 GB"]


def test_whose_choice_other_cards_are_held_against(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    config = load_config(LLAMA, ["per_device_train_batch_size=auto"])
    told = "auto: chosen for {}; other cards are held against this choice, and --gpu NAME chooses for another"
    assert plan_config(config, "4090").notices[-1] == told.format("RTX 4090")
    assert plan_config(config).notices[-1] == told.format("H200 141 GB, as there is no card here")
    for gpu, title in (("4090", "RTX 4090"), (None, "H200 141 GB")):
        assert f"other cards with what auto chose for {title}, " in plan_text(plan_config(config, gpu), config)


def test_what_fits_is_what_auto_may_take() -> None:
    """In a plan; a run may find its card taken by others, which is told."""
    config = load_config(LLAMA, ["per_device_train_batch_size=auto", "max_memory_gib=8"])
    planned = plan_config(config, "4090")
    assert planned.plan.verdict == "tight" and not planned.auto["fits"]
    plan = replace(planned.plan, verdict="fits")
    card = dict(plan_facts(replace(planned, plan=plan), config).summary)["card"]
    assert card == "RTX 4090, 8.0 GiB: fits, but not the 7.05 GiB that auto may take"
    (said,) = [notice for notice in planned.notices if "this takes least" in notice]
    assert "GiB of 7.05, the room on RTX 4090 less 5%, " in said


def test_a_local_model_and_its_family(tiny_model: Path, tmp_path: Path) -> None:
    assert plan_config(load_config(LLAMA, [f"model_name_or_path={tiny_model}"]), "t4").plan.workload.shape.hidden == 64
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UserError, match="family 'mamba'"):
        plan_config(load_config(LLAMA, [f"model_name_or_path={tmp_path}"]), "t4")


@pytest.mark.parametrize("key", ["offload_embedding", "offload_head"])
def test_one_matrix_is_not_kept_apart(key: str, tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    """Said before weights are loaded; on a CPU, where the key does nothing, it is a notice of the loader."""
    content = json.loads((tiny_model / "config.json").read_text())
    assert content["tie_word_embeddings"] is True
    (tmp_path / "config.json").write_text(json.dumps(content | {"tie_word_embeddings": False}))
    values = {"train_file": "data/demo/train.jsonl", "output_dir": str(tmp_path / "run"), key: True}
    config = load_config({**values, "model_name_or_path": str(tiny_model)})
    refusal = f"{key}: this model's output head is its input embeddings"
    with pytest.raises(UserError, match=refusal):
        plan_config(config, "h200")
    assert plan_config(load_config({**values, "model_name_or_path": str(tmp_path)}), "h200").plan
    assert prepare(config).hardware.kind == "cpu"
    monkeypatch.setattr(prepare_module, "detect_hardware", lambda use_cpu: imagined_hardware(GPUS["h200"]))
    with pytest.raises(UserError, match=refusal):
        prepare(config)


def test_where_auto_leaves_one_matrix_it_stays(tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    """Neither a plan nor a run for a GPU refuses it, and on a CPU there is nothing to tell."""
    values = {"train_file": "data/demo/train.jsonl", "output_dir": str(tmp_path), "offload_embedding": "auto"}
    config = load_config({**values, "model_name_or_path": str(tiny_model), "max_memory_gib": 0.1})
    assert plan_config(config, "h200").plan.workload.offloads_embedding is False
    on_cpu = prepare(config)
    monkeypatch.setattr(prepare_module, "detect_hardware", lambda use_cpu: imagined_hardware(GPUS["h200"]))
    for prepared in (on_cpu, prepare(config)):
        assert prepared.config.model.offload_embedding is False
        assert prepared.auto["chosen"] == {"offload_embedding": False}


@pytest.mark.parametrize("trained", [{}, {"trainable_token_indices": [5]}])
def test_an_adapter_that_trains_rows_keeps_the_embedding_on_the_device(trained: dict, tmp_path: Path) -> None:
    """Which is known before its weights are: training goes on from them."""
    name = load_config(LLAMA).model.model_name_or_path
    adapter = {"base_model_name_or_path": name, "peft_type": "LORA", "target_modules": ["q_proj"], **trained}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    keys = [f"model_name_or_path={tmp_path}", "offload_embedding=auto", "max_memory_gib=6"]
    assert plan_config(load_config(LLAMA, keys), "h200").plan.workload.offloads_embedding is not bool(trained)


def test_several_processes_are_told_before_weights_are_loaded(tiny_model: Path, monkeypatch) -> None:
    values = {"model_name_or_path": str(tiny_model), "train_file": "none.jsonl", "output_dir": "output/none"}
    monkeypatch.setattr(prepare_module, "detect_hardware", lambda use_cpu: imagined_hardware(GPUS["h200"]))
    monkeypatch.setattr(prepare_module, "check_shared_head", lambda keys, model_config: None)
    monkeypatch.setattr(preparing, "world_size", lambda: 2)
    config = load_config({**values, "offload_embedding": True, "offload_head": True})
    with pytest.raises(
        UserError, match=r"^offload_embedding: torch's Dist.* or drop offload_embedding and offload_head"
    ):
        prepare(config)


def test_more_layers_than_there_are_cannot_be_skipped(tiny_model: Path) -> None:
    """Neither in a plan nor in a run, whose data is not even looked for; a check knows what the planner knows."""
    values = {"model_name_or_path": str(tiny_model), "train_file": "none.jsonl", "output_dir": "output/none"}
    for refused in (lambda config: list(describe_check(config)), lambda config: plan_config(config, "t4"), prepare):
        with pytest.raises(UserError, match="checkpoint_skip_layers: got 3, and the model has 2 layers; use 2 or less"):
            refused(load_config({**values, "checkpoint_skip_layers": 3}))
    with pytest.raises(UserError, match="checkpoint_skip_layers: got 33, and the model has 32 layers"):
        list(describe_check(load_config(LLAMA, ["checkpoint_skip_layers=33"])))
    for model, number in ((str(tiny_model), 2), ("some/model", 99)):
        fine = load_config({**values, "model_name_or_path": model, "checkpoint_skip_layers": number})
        assert list(describe_check(fine))[-1].startswith("config: valid")


SIZES = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 100,
}  # fmt: skip


@pytest.mark.parametrize("value", [0, -1, "abc", float("nan"), float("inf"), 10**400, True, 1.5])
@pytest.mark.parametrize("name", ["num_attention_heads", "num_hidden_layers", "hidden_size"])
def test_an_impossible_size_is_named(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, name: value}))
    with pytest.raises(UserError, match=f"config.json: {name} is .{{1,40}}; it must be a positive whole number"):
        plan_config(load_config(LLAMA, [f"model_name_or_path={tmp_path}"]), "t4")


@pytest.mark.parametrize("sizes", [{"text_config": 5}, {"num_hidden_layers": -2}, {"num_hidden_layers": True}])
def test_layers_are_not_counted_by_what_is_no_number(tmp_path: Path, sizes: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SIZES | sizes))
    lines = list(describe_check(load_config(LLAMA, [f"model_name_or_path={tmp_path}", "checkpoint_skip_layers=2"])))
    assert "valid" in lines[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "/config.json holds no JSON object; mend the file"),
        ("[" * 10**5, "/config.json cannot be read: maximum recursion"),
        (json.dumps({**SIZES, "vocab_size": None}), ": config.json gives no single number as vocab_size; without it"),
        (json.dumps({"model_type": "llama"}), ": config.json gives no single number as hidden_size; without it"),
    ],
)
def test_what_config_json_lacks_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as error:
        plan_config(load_config(LLAMA, [f"model_name_or_path={tmp_path}"]), "t4")
    assert str(error.value).startswith(f"model_name_or_path: {tmp_path}{message}")


def test_more_heads_than_features(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "num_attention_heads": 10**9}))
    assert plan_config(load_config(LLAMA, [f"model_name_or_path={tmp_path}"]), "t4").plan.verdict == "does not fit"


@pytest.mark.parametrize("key", PLANNED_NUMBERS)
def test_numbers_without_end_are_refused_and_large_ones_planned(key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: 10*... is beyond what can be planned; use 1,000,000,000 or less$"):
        plan_config(load_config(LLAMA, [f"{key}={10**300}"]), "t4")
    config = load_config(LLAMA, [f"{key}={10**9}"])
    assert plan_text(plan_config(config, "t4"), config)


@pytest.mark.parametrize(("name", "reason"), [("a" * 400, "File name too long"), ("~nouser/x", "home directory")])
def test_names_that_no_folder_can_have(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"^model_name_or_path: .* cannot be looked for .*{reason}"):
        plan_config(load_config(LLAMA, [f"model_name_or_path={name}"]), "t4")


def test_an_adapter_that_is_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UserError, match="is the adapter itself; name the model that it is for"):
        plan_config(load_config(LLAMA, [f"model_name_or_path={tmp_path}"]), "t4")


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 3),
        ({"packing": True}, 1),
        ({"packing": "auto"}, 1),
        ({"per_device_train_batch_size": "auto", "gradient_accumulation_steps": None, "global_batch_size": 8}, 3),
    ],
)
def test_dry_runs_count_packed_rows(
    tiny_settings: dict[str, Any], tmp_path: Path, changes: dict[str, Any], steps: int
) -> None:
    """A dry run's steps are those of the plan below it and of the run itself."""
    settings = {**tiny_settings, "output_dir": str(tmp_path / "run"), "num_train_epochs": 1, **changes}
    prepared = prepare(load_config(settings))
    lines = list(describe_run(prepared))
    assert f"steps: {steps} optimizer steps of 8 rows each" in lines
    is_chosen = "other cards with what auto chose for " in "".join(lines)
    assert is_chosen is (changes.get("per_device_train_batch_size") == "auto")
