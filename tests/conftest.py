"""Fixtures that several tests need."""

from __future__ import annotations

import copy
import functools
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Before torch is imported: on a shared machine its threads wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from blank_picture import write_blank
from warm_python import WarmPython

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _frozen_garbage() -> None:
    """Runs collect garbage several times; that takes half a second where all that was ever imported is looked at."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not drawn unless the test has the marker `pictures`: that is 40 % of the time of a small run."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", write_blank)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def test_assets() -> Path:
    """Real tokenizers, chat templates and datasets; the test is skipped where they are absent."""
    folder = Path(os.environ.get("LAMPYRIS_TEST_ASSETS", REPOSITORY.parent / "shared"))
    if not (folder / "tokenizers").is_dir():
        pytest.skip(f"test assets are not at {folder}; set LAMPYRIS_TEST_ASSETS")
    return folder


@pytest.fixture(scope="session")
def real_tokenizer(test_assets: Path) -> Callable[[str], Any]:
    """`real_tokenizer("llama3")`: a test tokenizer of the caller's own; copying is faster than loading."""
    from transformers import AutoTokenizer

    load = functools.cache(lambda name: AutoTokenizer.from_pretrained(test_assets / "tokenizers" / name))
    return lambda name: copy.deepcopy(load(name))


@pytest.fixture(scope="module")
def shared_encoders() -> Iterator[None]:
    """All renderers of a tokenizer have one encoder: each new one would look at every token of the vocabulary first."""
    from component.data.batch_encoding import BatchEncoder

    build, encoders = BatchEncoder.of, {}

    def find(tokenizer: Any) -> Any:
        backend = tokenizer.backend_tokenizer
        # An added token makes another vocabulary.
        key = (backend, backend.get_vocab_size(), tokenizer.split_special_tokens)
        return encoders[key] if key in encoders else encoders.setdefault(key, build(tokenizer))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchEncoder, "of", find)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights, a byte-level BPE tokenizer and a chat template."""
    from component.models.tiny import Shape, make_tiny_model

    folder = tmp_path_factory.mktemp("tiny") / "model"
    shape = Shape(hidden_size=64, intermediate_size=128, num_hidden_layers=2, max_position_embeddings=512)
    make_tiny_model(folder, shape=shape, seed=0, texts=[REPOSITORY / "data/demo/pretrain.jsonl"])
    return folder


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 conversations of one to three turns, so of unequal lengths; with batches of 4 x 2, the third step has 6."""
    with (REPOSITORY / "data/demo/train.jsonl").open(encoding="utf-8") as file:
        turns = iter([json.loads(line)["conversation"][0] for line in file])
    rows = [{"conversation": [next(turns) for _ in range(1 + number % 3)]} for number in range(22)]
    path = tmp_path_factory.mktemp("data") / "conversations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_settings(tiny_model: Path, conversations: Path) -> dict[str, Any]:
    """Keys of a small sft run in float32 on the CPU, three steps an epoch; `output_dir` is left to the test."""
    return {
        "model_name_or_path": str(tiny_model),
        "train_file": str(conversations),
        "max_seq_length": 256,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "lora_rank": 8,
        "lora_alpha": 16,
        "logging_steps": 1,
        "tokenize_num_workers": 1,
    }


@pytest.fixture(scope="session")
def train_command() -> Callable[..., list[str]]:
    """`train_command(settings, folder, *arguments)`: writes `folder`/config.json and gives the command that runs it."""

    def build(settings: Mapping[str, Any], folder: Path, *arguments: str) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.json"
        config.write_text(json.dumps(dict(settings)), encoding="utf-8")
        return [sys.executable, str(REPOSITORY / "train.py"), "--train_args_file", str(config), *arguments]

    return build


@pytest.fixture(scope="session")
def train_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a train.py process: one thread, no hub, caches of its own."""
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(cache)}


@pytest.fixture(scope="session")
def run_python(train_environment: dict[str, str]) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`subprocess.run` of a Python program that needs no new interpreter, only a process of its own; see WarmPython."""
    python = WarmPython(REPOSITORY, train_environment)
    yield python.run
    python.close()


@pytest.fixture(scope="session")
def run_train(
    train_command: Callable[..., list[str]],
    train_environment: dict[str, str],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_train(settings, folder, *arguments)`: train.py in a process of its own, with `folder` as its directory.

    `is_new=True` makes it one of a new interpreter, for what depends on the order of imports, as Unsloth does.
    """

    def run(
        settings: Mapping[str, Any], folder: Path, *arguments: str, is_new: bool = False
    ) -> subprocess.CompletedProcess[str]:
        command = train_command(settings, folder, *arguments)
        options: dict[str, Any] = {"cwd": folder, "env": train_environment, "timeout": 300}
        if is_new:
            return subprocess.run(command, **options, capture_output=True, text=True, check=False)
        return run_python(command, **options)

    return run
