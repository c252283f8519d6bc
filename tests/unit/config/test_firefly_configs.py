"""Configs in the shape of Firefly's own: every combination of task, mode and template that it ships, with all its keys.

The files are made here from a table of facts (which model goes with which template, task and mode) and of the values
that Firefly gives its keys; nothing of its files is kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from component.config.legacy import DROPPED
from component.config.load import load_config
from component.config.reference import json_schema_text
from component.pipeline.describe import describe_check
from component.registry import TEMPLATE_NAMES

ROOT = Path(__file__).resolve().parents[3]

#: task, mode, template, models. An asterisk: the file has use_unsloth true; a minus: it has use_unsloth false.
TABLE = """
dpo      full   minicpm    openbmb/MiniCPM-2B-dpo-fp16
dpo      full   minicpm3   openbmb/MiniCPM3-4B
dpo      full   qwen       Qwen/Qwen1.5-7B-Chat
dpo      lora   minicpm    openbmb/MiniCPM-2B-dpo-fp16
dpo      lora   minicpm3   openbmb/MiniCPM3-4B
dpo      lora   qwen       Qwen/Qwen1.5-7B-Chat
dpo      qlora  minicpm    openbmb/MiniCPM-2B-dpo-fp16
dpo      qlora  minicpm3   openbmb/MiniCPM3-4B
dpo      qlora  qwen       Qwen/Qwen1.5-7B-Chat
pretrain full   none       bigscience/bloom-1b1 bigscience/bloom-3b openbmb/MiniCPM3-4B Qwen/Qwen-7B
pretrain qlora  none       bigscience/bloom-3b openbmb/MiniCPM3-4B Qwen/Qwen-7B 01-ai/Yi-6B
sft      full   default    bigscience/bloom-1b1 bigscience/bloom-3b
sft      full   minicpm    openbmb/MiniCPM-2B-dpo-fp16
sft      full   minicpm3   openbmb/MiniCPM3-4B
sft      full   qwen       Qwen/Qwen-7B-Chat
sft      full   yi         01-ai/Yi-6B-Chat
sft      lora   default    bigscience/bloom-7b1
sft      lora   minicpm3   openbmb/MiniCPM3-4B
sft      lora   qwen       Qwen/Qwen1.5-7B-Chat
sft      qlora  baichuan   baichuan-inc/Baichuan-13B-Chat baichuan-inc/baichuan-7B
sft      qlora  baichuan2  baichuan-inc/Baichuan2-13B-Chat baichuan-inc/Baichuan2-7B-Chat
sft      qlora  default    bigscience/bloom-7b1
sft      qlora  chatglm2   THUDM/chatglm2-6b
sft      qlora  chatglm3   THUDM/chatglm3-6b
sft      qlora  deepseek   deepseek-ai/deepseek-llm-7b-chat deepseek-ai/deepseek-moe-16b-chat
sft      qlora  gemma      google/gemma-2b-it* google/gemma-7b-it*
sft      qlora  internlm   internlm/internlm-chat-20b internlm/internlm-chat-7b
sft      qlora  internlm2  internlm/internlm2-chat-20b internlm/internlm2-chat-7b
sft      qlora  llama2     NousResearch/Llama-2-13b-chat-hf NousResearch/Llama-2-7b-chat-hf
sft      qlora  llama3     NousResearch/Meta-Llama-3-8B-Instruct*
sft      qlora  minicpm    openbmb/MiniCPM-2B-dpo-fp16
sft      qlora  minicpm3   openbmb/MiniCPM3-4B-
sft      qlora  mistral    mistralai/Mistral-7B-Instruct-v0.1*
sft      qlora  mixtral    mistralai/Mixtral-8x7B-Instruct-v0.1
sft      qlora  orion      OrionStarAI/Orion-14B-Chat
sft      qlora  phi3       microsoft/Phi-3-mini-128k-instruct
sft      qlora  qwen       Qwen/Qwen-14B-Chat Qwen/Qwen-7B-Chat Qwen/Qwen1.5-7B-Chat- Qwen/Qwen2-7B-Instruct-
sft      qlora  qwen       Qwen/Qwen1.5-MoE-A2.7B-Chat Qwen/Qwen2.5-7B-Instruct*
sft      qlora  vicuna     lmsys/vicuna-13b-v1.5 lmsys/vicuna-7b-v1.5
sft      qlora  xverse     xverse/XVERSE-13B-Chat xverse/XVERSE-7B-Chat
sft      qlora  yi         01-ai/Yi-34B 01-ai/Yi-6B-Chat 01-ai/Yi-1.5-6B-Chat
sft      qlora  zephyr     HuggingFaceH4/zephyr-7b-beta*
sft      qlora  ziya2      IDEA-CCNL/Ziya2-13B-Chat
"""

DATA_FILES = {"dpo": "./data/dummy_dpo.jsonl", "pretrain": "./data/pretrain", "sft": "./data/dummy_data.jsonl"}
EVERYWHERE: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "max_seq_length": 1024,
    "logging_steps": 100,
    "save_steps": 100,
    "save_strategy": "steps",
    "gradient_checkpointing": True,
    "disable_tqdm": False,
    "seed": 42,
    "fp16": True,
    "report_to": "tensorboard",
    "dataloader_num_workers": 0,
    "weight_decay": 0,
    "remove_unused_columns": False,
}
ADAPTER = {"lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.05}


def firefly_config(task: str, mode: str, template: str, model: str) -> dict[str, Any]:
    """The keys that Firefly's file for this combination has, and no other."""
    config = {**EVERYWHERE, "output_dir": "output/x", "train_file": DATA_FILES[task]}
    config["model_name_or_path"] = model.rstrip("*-")
    is_old_style = task == "pretrain" or (task, mode) == ("sft", "full")
    config["optim"] = "adamw_hf" if is_old_style else "paged_adamw_32bit"
    config["lr_scheduler_type"] = "cosine" if is_old_style else "constant_with_warmup"
    config["max_grad_norm"] = 1.0 if is_old_style else 0.3
    config["learning_rate"] = {"full": 1e-5, "lora": 1e-4, "qlora": 2e-4}[mode]
    if task == "pretrain":
        config |= {"warmup_ratio": 0.01, "tokenize_num_workers": 10, "logging_first_step": False}
    else:
        config |= {"warmup_steps": 100, "template_name": template}
    if task == "dpo":
        config |= {"beta": 0.1, "max_prompt_length": 300, "learning_rate": 5e-7}
    if task != "sft":
        config["task_type"] = task
    if task != "sft" or mode != "qlora":
        config["train_mode"] = mode
    if task == "dpo" or (task == "sft" and mode != "full"):
        config |= ADAPTER
    if mode == "full" and task != "dpo":
        config["deepspeed"] = "./train_args/ds_z3_config.json"
    if (task, mode) != ("pretrain", "qlora"):
        config["save_total_limit"] = 1
    if template == "chatglm3":
        config["train_file"] = "./data/dummy_data_chatglm3.jsonl"
    if model[-1] in "*-":
        config["use_unsloth"] = model.endswith("*")
    return config


def rows() -> list[tuple[str, str, str, str]]:
    lines = (line.split() for line in TABLE.split("\n") if line)
    return [(task, mode, template, model) for task, mode, template, *models in lines for model in models]


def expected_notices(task: str, mode: str) -> set[str]:
    """Key and verdict of each notice: what was renamed, and what the task or mode does not read."""
    notices = set()
    if task == "pretrain":
        notices.add("warmup_ratio: an old name, read as warmup_steps; write warmup_steps")
    if task == "pretrain" or (task, mode) == ("sft", "full"):
        notices.add("optim: adamw_hf is an old name, read as adamw_torch; write adamw_torch")
    if task == "dpo":
        notices.add(f"max_prompt_length: ignored; {DROPPED['max_prompt_length']}")
    if (task, mode) == ("dpo", "full"):
        notices |= {f"{key}: ignored; train_mode full does not read it, only lora, qlora" for key in ADAPTER}
    return notices


def expected_hints(task: str, mode: str) -> list[str]:
    """What Firefly's settings do not do as they look."""
    return ["lora_dropout: 0.05 has no effect: dpo trains without dropout"] if task == "dpo" and mode != "full" else []


def test_the_table_has_all_of_them() -> None:
    assert len(rows()) == 65
    assert len(set(rows())) == 65
    assert {template for _, _, template, _ in rows()} - {"none"} <= set(TEMPLATE_NAMES)
    keys = {key for row in rows() for key in firefly_config(*row)}
    assert keys == {
        *EVERYWHERE, *ADAPTER, "beta", "deepspeed", "learning_rate", "logging_first_step", "lr_scheduler_type",
        "max_grad_norm", "max_prompt_length", "model_name_or_path", "optim", "output_dir", "save_total_limit",
        "task_type", "template_name", "tokenize_num_workers", "train_file", "train_mode", "use_unsloth",
        "warmup_ratio", "warmup_steps",
    }  # fmt: skip


@pytest.mark.parametrize("row", rows(), ids=["-".join(row).replace("/", "-") for row in rows()])
def test_it_passes_the_check(row: tuple[str, str, str, str], tmp_path: Path) -> None:
    task, mode, template, _ = row
    file = tmp_path / "config.json"
    file.write_text(json.dumps(firefly_config(*row), indent=4), encoding="utf-8")
    config = load_config(file)
    assert (config.model.task_type, config.model.train_mode) == (task, mode)
    assert config.data.template_name == ("auto" if template == "none" else template)
    assert {str(notice).partition(": ")[2] for notice in config.notices} == expected_notices(task, mode)
    *lines, verdict = describe_check(config)
    hints = [line for line in lines if line.startswith("hint: ")]
    assert len(lines) == len(config.notices) + len(hints)
    assert [hint.split(": ", 2)[2].partition(";")[0] for hint in hints] == expected_hints(task, mode)
    assert verdict == f"{file}: valid; {task}, {mode}, output to output/x"
    assert config.training.warmup_steps == (0.01 if task == "pretrain" else 100)


def test_they_validate_against_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(json_schema_text()))
    for row in rows():
        assert list(validator.iter_errors(firefly_config(*row))) == []
    assert not validator.is_valid({**firefly_config(*rows()[0]), "lora_rnak": 8})


def test_the_files_that_they_name_are_here() -> None:
    named = {config[key] for config in (firefly_config(*row) for row in rows()) for key in ("train_file", "deepspeed")
             if key in config}  # fmt: skip
    assert named == {
        "./data/dummy_data.jsonl",
        "./data/dummy_data_chatglm3.jsonl",
        "./data/dummy_dpo.jsonl",
        "./data/pretrain",
        "./train_args/ds_z3_config.json",
    }
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert list((ROOT / "data/pretrain").glob("*.jsonl"))
