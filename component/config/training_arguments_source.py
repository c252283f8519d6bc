"""What the installed transformers accepts as training arguments, read from its source without importing it."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path


def installed_training_arguments() -> dict[str, str] | None:
    """Return the fields of transformers' TrainingArguments, name -> text of the annotation, in their order.

    None when transformers is not installed, or its source has no such class where it is looked for.
    """
    body = _class_body("training_args.py", "TrainingArguments")
    if body is None:
        return None
    return {
        statement.target.id: ast.unparse(statement.annotation)
        for statement in body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if "ClassVar" not in ast.unparse(statement.annotation) and not _is_outside_init(statement.value)
    }


def optimizer_names() -> tuple[str, ...] | None:
    """Return the values that `optim` may have; None where `installed_training_arguments` is None."""
    return _enum_values("training_args.py", "OptimizerNames")


def scheduler_names() -> tuple[str, ...] | None:
    """Return the values that `lr_scheduler_type` may have; None where `installed_training_arguments` is None."""
    return _enum_values("trainer_utils.py", "SchedulerType")


def _is_outside_init(default: ast.expr | None) -> bool:
    """Whether the default is `field(init=False, ...)`, which no config can set."""
    return isinstance(default, ast.Call) and any(
        keyword.arg == "init" and ast.unparse(keyword.value) == "False" for keyword in default.keywords
    )


def _enum_values(file: str, name: str) -> tuple[str, ...] | None:
    body = _class_body(file, name)
    if body is None:
        return None
    values = (statement.value for statement in body if isinstance(statement, ast.Assign))
    return tuple(value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))


def _class_body(file: str, name: str) -> list[ast.stmt] | None:
    """The statements of a class at the top level of a module of transformers."""
    for statement in _module_body(file):
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return statement.body
    return None


@cache
def _module_body(file: str) -> list[ast.stmt]:
    """The statements of a module of transformers, none where there is no such file."""
    spec = importlib.util.find_spec("transformers")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / file
        if path.is_file():
            return ast.parse(path.read_text(encoding="utf-8")).body
    return []
