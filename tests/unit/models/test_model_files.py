"""Finding models: folders, adapters, the hub; and what is said where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.model_files import ModelSource, find_model, read_model_config


def problem(model: ModelSection) -> str:
    with pytest.raises(UserError) as caught:
        read_model_config(model)
    (message,) = caught.value.messages
    return message


def test_a_local_folder(section, tiny_model) -> None:
    assert read_model_config(section())["model_type"] == "llama"
    assert find_model(section()) == ModelSource(base=str(tiny_model))


def test_an_adapter_folder_resolves_to_its_base(tmp_path, tiny_model) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    model = ModelSection(model_name_or_path=str(tmp_path))
    assert find_model(model) == ModelSource(base=str(tiny_model), adapter=str(tmp_path))
    assert read_model_config(model)["model_type"] == "llama"


def test_a_missing_folder_shows_its_absolute_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problem(ModelSection(model_name_or_path="./models/llama")) == (
        f"model_name_or_path: ./models/llama is no folder (looked at {tmp_path / 'models' / 'llama'}); "
        "name a local folder or a hub id"
    )


def test_a_folder_without_a_model(tmp_path) -> None:
    assert problem(ModelSection(model_name_or_path=str(tmp_path))) == (
        f"model_name_or_path: {tmp_path} has no config.json or adapter_config.json; name a model"
    )


def test_a_broken_config_names_the_file(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert problem(ModelSection(model_name_or_path=str(tmp_path))).startswith(
        f"model_name_or_path: {tmp_path / 'config.json'} cannot be read: "
    )


def test_an_adapter_whose_base_is_gone(tmp_path) -> None:
    base = tmp_path / "gone" / "base"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert problem(ModelSection(model_name_or_path=str(tmp_path))) == (
        f"model_name_or_path: {tmp_path} needs {base}, which is no folder (looked at {base}); "
        "name a local folder or a hub id; if the base has moved, write where it is now into base_model_name_or_path of "
        "the adapter's adapter_config.json"
    )


@pytest.mark.parametrize(
    ("base", "rest"),
    [
        (5, "base_model_name_or_path is 5; it must be the name of a model"),
        (["a"], 'base_model_name_or_path is ["a"]; it must be the name of a model'),
        (".", "base_model_name_or_path is the adapter itself; name the model that it is for"),
    ],
)
def test_an_adapter_that_names_no_base(tmp_path, monkeypatch, base, rest) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": base}))
    assert problem(ModelSection(model_name_or_path=str(tmp_path))) == f"model_name_or_path: {file}: {rest}"


def test_names_that_cannot_be_looked_for() -> None:
    for name, reason in (("a" * 400, "File name too long"), ("~nouser/x", "Could not determine home directory")):
        assert problem(ModelSection(model_name_or_path=name)) == (
            f"model_name_or_path: {name if len(name) < 40 else 'a' * 37 + '...'} cannot be looked for ({reason}); "
            "name a local folder or a hub id"
        )


def test_an_adapter_of_another_kind(tmp_path) -> None:
    content = {"base_model_name_or_path": "org/base", "peft_type": "IA3"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    assert problem(ModelSection(model_name_or_path=str(tmp_path))) == (
        f"model_name_or_path: {tmp_path} is an adapter of the kind IA3, and only LORA adapters are read here; name its "
        "base org/base, or merge the adapter into it with PEFT"
    )


READ_FROM_THE_HUB = """
import sys
from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.model_files import configure_hub, read_model_config

offline = sys.argv[1] == "offline"
model = ModelSection(
    model_name_or_path="nobody/nothing", offline=offline, hub_endpoint=None if offline else "http://127.0.0.1:9"
)
configure_hub(model)
try:
    read_model_config(model)
except UserError as error:
    print(*error.messages, sep="\\n")
assert "transformers" not in sys.modules and "torch" not in sys.modules
"""


def hub_message(repository: Path, tmp_path: Path, mode: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(repository), "NO_PROXY": "127.0.0.1"}
    result = subprocess.run(
        [sys.executable, "-c", READ_FROM_THE_HUB, mode],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return result.stdout.strip()


def test_a_hub_model_offline(repository, tmp_path) -> None:
    assert hub_message(repository, tmp_path, "offline") == (
        f"model_name_or_path: nobody/nothing is neither a folder (looked at {tmp_path / 'nobody' / 'nothing'}) nor in "
        "the local hub cache, and the hub is switched off (offline or HF_HUB_OFFLINE); "
        "name a local folder, or download it first"
    )


def test_an_unreachable_hub(repository, tmp_path) -> None:
    message = hub_message(repository, tmp_path, "unreachable")
    assert message.startswith(
        f"model_name_or_path: nobody/nothing is no folder (looked at {tmp_path / 'nobody' / 'nothing'}), and "
        "http://127.0.0.1:9 cannot be reached ("
    )
    assert message.endswith("; set hub_endpoint to a mirror, or name a local folder")
