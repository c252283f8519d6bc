"""Every shipped config prepares its run up to the weights, with a tiny model of the same architecture in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from component.config.load import load_config
from component.models.families import checkpoints
from component.models.tiny import Shape, make_tiny_model
from component.pipeline.prepare import prepare
from component.pipeline.shipped_configs import config_texts

MODEL_TYPES = {checkpoint.name: family.model_type for family, checkpoint in checkpoints()}
#: What a CPU and a tokenizer without Gemma's control tokens change.
EXPECTED = (
    "optim: paged_adamw_32bit does not page on a CPU",
    "template_name: gemma ends a turn with",
    "grpo: 2 prompts are sampled from at once; 1 of 5",
)
DATA = ("data/dummy_data.jsonl", "data/dummy_dpo.jsonl", "data/pretrain/dummy_pretrain.jsonl")


@pytest.fixture(scope="module")
def tiny_of(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of an architecture, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("models")
    shape = Shape(vocab_size=1024)
    made = {"llama": folder / "llama"}
    make_tiny_model(made["llama"], shape=shape, seed=0, texts=[repository / file for file in DATA])

    def find(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = folder / model_type
            make_tiny_model(made[model_type], shape=shape, seed=0, tokenizer=made["llama"], model_type=model_type)
        return made[model_type]

    return find


@pytest.mark.parametrize("name", list(config_texts()))
def test_dry_run(
    name: str, tiny_of: Callable[[str], Path], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    model = tiny_of(MODEL_TYPES[Path(name).stem])
    overrides = {"model_name_or_path": str(model), "output_dir": str(tmp_path / "run"), "use_cpu": True}
    prepared = prepare(load_config(f"train_args/{name}", overrides))
    assert prepared.loader.got == "vanilla"
    report = prepared.data.report
    assert (report.rows_dropped, report.failures) == (0, ())
    assert len(prepared.data.train) > 0
    assert [notice for notice in prepared.notices if not notice.startswith(EXPECTED)] == []
    assert prepared.hints == ()
