"""What is read from the source of transformers equals what importing it says."""

import json
import subprocess
import sys

import pytest

from component.config import training_arguments_source as source

pytest.importorskip("transformers")

ASK_TRANSFORMERS = """
import dataclasses, json
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames, TrainingArguments
print(json.dumps({
    "fields": [field.name for field in dataclasses.fields(TrainingArguments) if field.init],
    "optimizers": [name.value for name in OptimizerNames],
    "schedulers": [name.value for name in SchedulerType],
}))
"""


def test_equals_the_imported_package(run_python) -> None:
    """In another process, since Unsloth would change these classes."""
    result = run_python([sys.executable, "-c", ASK_TRANSFORMERS], check=True)
    imported = json.loads(result.stdout.splitlines()[-1])
    fields = source.installed_training_arguments()
    assert fields is not None
    assert list(fields) == imported["fields"]
    assert list(source.optimizer_names() or ()) == imported["optimizers"]
    assert list(source.scheduler_names() or ()) == imported["schedulers"]
    assert fields["learning_rate"] == "float"


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from component.config import training_arguments_source as s; s.installed_training_arguments(); "
        "s.optimizer_names(); s.scheduler_names(); print([m for m in ('transformers', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_absent_package_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    source._module_body.cache_clear()
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    try:
        assert source.installed_training_arguments() is None
        assert source.optimizer_names() is None
        assert source.scheduler_names() is None
    finally:
        source._module_body.cache_clear()
