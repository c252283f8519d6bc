"""The JSON Schema, the reference page, and the names that are written down beside the packages that define them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from component.config import training_arguments_source as source
from component.config.choices import METRICS, OPTIMIZERS, REPORTERS, SCHEDULERS, named_choices
from component.config.legacy import DROPPED, FOREIGN, RENAMED, RENAMED_VALUES, SHARES, SWITCHES
from component.config.reference import json_schema_text, reference_page
from component.config.schema import FILE_KEYS, schema_fields

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads(json_schema_text())


def is_valid(**values: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid({"model_name_or_path": "m", "train_file": "d", **values})


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run python script/write_docs.py"


def test_the_page_explains_every_name() -> None:
    page = reference_page()
    for key, item in schema_fields().items():
        rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert len(rows) == 1, key
        assert item.metadata["help"].replace("|", "\\|") in rows[0]
        assert len(rows[0].replace("\\|", "").split("|")) == 7
    for key in (*FILE_KEYS, *RENAMED, *SWITCHES, *DROPPED, *named_choices()):
        assert f"- `{key}`" in page, key


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == {*schema_fields(), *FILE_KEYS, *RENAMED, *SWITCHES, *DROPPED}
    assert all(entry["description"] for entry in SCHEMA["properties"].values())


@pytest.mark.parametrize(
    "values",
    [
        {"$schema": "s.json", "base": "a.json"},
        {"base": ["a.json"]},
        {"seed": 0, "lora_rank": 8, "learning_rate": 1e-4, "bf16": None},
        {"use_unsloth": "auto"},
        {"use_unsloth": True},
        {"seed": "${other}", "run_name": "${oc.env:NAME}"},
        {"report_to": "all"},
        {"report_to": ["wandb", "tensorboard"]},
        {"optim": "adamw_hf"},
        {"template_name": "llama3"},
        {"template_name": "my/own.jinja"},
        {"warmup_ratio": 0.1, "evaluation_strategy": "no", "overwrite_output_dir": True},
        {"train_file": ["a", "b"], "eval_file": None},
        {"extra_training_args": {"a": [1, {"b": None}]}},
        {"model_loader": None},
    ],
)
def test_the_schema_accepts(values: dict[str, Any]) -> None:
    assert is_valid(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"lora_rnak": 8},
        {"lora_rank": "eight"},
        {"lora_rank": 0},
        {"lora_rank": 8.5},
        {"seed": -1},
        {"lora_dropout": 1},
        {"train_mode": "qlorra"},
        {"task_type": "stf"},
        {"optim": "adam"},
        {"template_name": "lama"},
        {"report_to": ["excel"]},
        {"report_to": "excel"},
        {"use_unsloth": "maybe"},
        {"train_file": 3},
        {"base": 3},
        {"cutoff_len": 8},
        {"packing": "yes"},
    ],
)
def test_the_schema_rejects(values: dict[str, Any]) -> None:
    assert not is_valid(**values)


def test_names_of_transformers_are_those_of_the_installed_one() -> None:
    pytest.importorskip("transformers")
    assert source.optimizer_names() == OPTIMIZERS
    assert source.scheduler_names() == SCHEDULERS


def test_every_training_argument_of_ours_is_one_of_transformers() -> None:
    installed = source.installed_training_arguments()
    if installed is None:
        pytest.skip("transformers is not installed")
    ours = {"task_type", "train_mode", "early_stopping_patience", "early_stopping_threshold", "extra_training_args"}
    ours |= {"packing", "group_by_length", "max_seq_length", "loraplus_lr_ratio", "embedding_learning_rate"}
    ours |= {"global_batch_size", "max_memory_gib", "loss_chunk_tokens"}
    section = {name for name, item in schema_fields().items() if name in _training_keys()}
    assert section - ours <= set(installed)


def _training_keys() -> set[str]:
    from dataclasses import fields

    from component.config.schema import TrainingSection

    return {item.name for item in fields(TrainingSection)}


def test_tables_of_names_do_not_overlap() -> None:
    tables = [set(schema_fields())]
    tables += [set(table) for table in (FILE_KEYS, RENAMED, SWITCHES, DROPPED, FOREIGN)]
    for index, table in enumerate(tables):
        for other in tables[index + 1 :]:
            assert table & other == set()


def test_tables_of_names_lead_to_names_that_exist() -> None:
    assert set(RENAMED.values()) <= set(schema_fields())
    assert set(SHARES) <= set(RENAMED)
    assert {key for key, _ in SWITCHES.values()} <= set(schema_fields())
    for (key, _), new in RENAMED_VALUES.items():
        assert new in named_choices()[key]
    named = {hint.split()[1].rstrip(":") for hint in FOREIGN.values() if hint.startswith("use ")}
    assert named - {"the", "train.py"} <= set(schema_fields())


def test_reporters_and_metrics() -> None:
    assert set(REPORTERS) == {"none", "tensorboard", "wandb", "swanlab", "mlflow", "trackio"}
    assert set(METRICS) == {"eval_loss", "loss", "eval_perplexity", "eval_rewards/accuracies", "eval_rewards/margins",
                            "eval_accuracy", "eval_margin", "eval_reward"}  # fmt: skip
