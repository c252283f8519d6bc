"""Both loaders train the same on a GPU: the same data, steps and losses within the noise of 16-bit arithmetic.

Each loader has a process of its own for each group of cases, since Unsloth patches its process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

#: Nats by which the losses of the loaders may differ at any logged step. Largest differences seen on an H200 over 20
#: steps: 0.0014 (qlora, bf16), 0.0006 (qlora, fp16), 0.0073 (full, bf16).
TOLERANCE = 0.02

#: Cases by the processes that they share. What a process keeps for all that follows comes first in it: cuBLAS's small
#: workspaces of `offload_embedding`, and the kernel that packed rows bring. Full training is compiled by other code of
#: Unsloth than adapters are.
GROUPS = {
    "adapters": {
        "dequantized-bf16": {
            "train_mode": "qlora",
            "bf16": "true",
            "learning_rate": "2e-3",
            "packing": "true",
            "dequantize_base": "true",
            "checkpoint_skip_layers": "1",
        },
        "qlora-bf16": {"train_mode": "qlora", "bf16": "true", "learning_rate": "2e-3"},
        "lora-bf16": {"train_mode": "lora", "bf16": "true", "learning_rate": "2e-3"},
        **dict.fromkeys(
            ("new-tokens", "new-tokens-untied"),
            {
                "train_mode": "qlora",
                "bf16": "true",
                "learning_rate": "2e-3",
                "new_tokens": "['Translate into', ' gano', '<tool>']",  # of questions, of answers, of neither
            },
        ),
        **dict.fromkeys(
            ("saved-modules", "saved-modules-untied"),
            {
                "train_mode": "qlora",
                "bf16": "true",
                "learning_rate": "1e-3",
                "modules_to_save": "[embed_tokens, lm_head]",
            },
        ),
        "dora": {"train_mode": "qlora", "bf16": "true", "learning_rate": "2e-3", "use_dora": "true"},
        "lora-bias": {"train_mode": "qlora", "bf16": "true", "learning_rate": "2e-3", "lora_bias": "true"},
        "pissa": {"train_mode": "lora", "bf16": "true", "learning_rate": "1e-3", "init_lora_weights": "pissa"},
        "fp8-bf16": {"train_mode": "lora", "bf16": "true", "learning_rate": "2e-3", "fp8_base": "true"},
        "tiled-bf16": {"train_mode": "qlora", "bf16": "true", "learning_rate": "2e-3", "tiled_mlp": "true"},
    },
    "offloaded and fp16": {
        "offloaded-bf16": {
            "train_mode": "qlora",
            "bf16": "true",
            "learning_rate": "2e-3",
            "offload_embedding": "true",
            "offload_head": "true",
        },
        "qlora-fp16": {"train_mode": "qlora", "fp16": "true", "learning_rate": "2e-3"},
    },
    "full": {"full-bf16": {"train_mode": "full", "bf16": "true", "learning_rate": "1e-3"}},
}
#: Cases whose model has an output head of its own.
UNTIED = ("offloaded-bf16", "new-tokens-untied", "saved-modules-untied")
LOADERS = {"vanilla": "false", "unsloth": "require"}
COMMON = {
    "train_file": "data/demo/train.jsonl",
    "eval_file": "data/demo/held_out.jsonl",
    "max_seq_length": "128",
    "max_steps": "20",
    "eval_steps": "20",
    "save_strategy": "no",
    "logging_steps": "5",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "2",
}

#: train.py for one command line after the other; what a run leaves is given back before the next.
TRAIN = """
import sys
import train
from component.pipeline.benchmark.process_memory import release_memory
from component.runtime.command import run_command

def answer(arguments):
    release_memory()
    sys.argv[1:] = arguments
    return run_command(train.main)
"""


@pytest.fixture(scope="module")
def models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By whether the output head is the input embeddings."""
    folder, texts = tmp_path_factory.mktemp("models"), [repository / "data/demo/pretrain.jsonl"]
    made = {}
    for is_tied in (True, False):
        made[is_tied] = folder / ("tied" if is_tied else "untied")
        shape = Shape(hidden_size=256, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=is_tied)
        make_tiny_model(made[is_tied], shape=shape, seed=0, texts=texts)
    return made


@pytest.fixture(scope="module")
def group(repository: Path) -> Iterator[dict[str, SharedProcess]]:
    """The processes of a group of cases by their loader."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with ExitStack() as open_ones:
        yield {
            loader: open_ones.enter_context(closing(SharedProcess(TRAIN, cwd=repository, env=environment)))
            for loader in LOADERS
        }


def train(process: SharedProcess, model: Path, output: Path, **overrides: str) -> dict:
    settings = {**COMMON, "model_name_or_path": str(model), "output_dir": str(output), **overrides}
    config = output.with_suffix(".json")
    config.write_text("{}")
    arguments = ["--train_args_file", str(config), *(f"{key}={value}" for key, value in settings.items())]
    assert process.ask(arguments=arguments) == 0
    return json.loads((output / "run.json").read_text())


def losses(output: Path) -> dict[tuple[int, str], float]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {
        (record["step"], name): record[name] for record in records for name in ("loss", "eval_loss") if name in record
    }


@pytest.mark.parametrize(
    ("group", "case", "settings"),
    [pytest.param(group, case, cases[case], id=case) for group, cases in GROUPS.items() for case in cases],
    indirect=["group"],
    scope="module",
)
def test_both_loaders_reach_the_same_losses(
    group: dict[str, SharedProcess], models: dict[bool, Path], tmp_path: Path, case: str, settings: dict[str, str]
) -> None:
    model = models[case not in UNTIED]

    def run(loader: str) -> dict:
        return train(group[loader], model, tmp_path / loader, use_unsloth=LOADERS[loader], **settings)

    with ThreadPoolExecutor() as both:
        runs = dict(zip(LOADERS, both.map(run, LOADERS), strict=True))
    assert {loader: run["loader"]["got"] for loader, run in runs.items()} == {
        "vanilla": "vanilla",
        "unsloth": "unsloth",
    }
    assert not list(model.rglob("*.pt")), "Unsloth has written embeddings into the model's folder"
    assert runs["vanilla"]["hashes"]["data"] == runs["unsloth"]["hashes"]["data"]
    vanilla, unsloth = losses(tmp_path / "vanilla"), losses(tmp_path / "unsloth")
    assert vanilla.keys() == unsloth.keys() and len(vanilla) == 6
    worst = max(abs(vanilla[step] - unsloth[step]) for step in vanilla)
    print(f"{case}: largest difference {worst:.4f} nats")
    assert worst <= TOLERANCE
    assert vanilla[(20, "loss")] < vanilla[(1, "loss")] - 1, "nothing was learned, so nothing was compared"
