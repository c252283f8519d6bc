"""Imports go one way, heavy packages stay where they are wrapped, and a check of a config imports none of them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FOUNDATION = {"config", "registry", "runtime"}
#: Part of component/ -> the other parts that it may import.
ALLOWED = {
    "registry": set(),
    "config": {"registry"},
    "runtime": {"config"},
    "data": FOUNDATION,
    "models": FOUNDATION,
    "planning": FOUNDATION,
    "artifacts": FOUNDATION,
    "trainers": FOUNDATION | {"data", "models", "artifacts"},
    "pipeline": FOUNDATION | {"data", "models", "planning", "artifacts", "trainers"},
}
#: train.py and script/: the pipeline does the work. The runtime ends their process.
DOORS = {"config", "pipeline", "runtime"}
#: Imports that a door needs for want of a part of the pipeline.
DOOR_EXCEPTIONS = {
    ("script/make_tiny_model.py", "component.models.tiny"),
    ("script/chat.py", "component.data.rows"),
}

#: Packages of the standard library aside, what config and registry may import, and the runtime at module level.
PACKAGES = {"registry": set(), "config": {"omegaconf", "yaml"}, "runtime": {"loguru", "psutil"}}

#: Optional or process-changing packages -> the only module of component/ that imports them.
WRAPPERS = {
    "unsloth": "component/models/unsloth_import.py",
    "unsloth_zoo": "component/models/unsloth_import.py",
    "bitsandbytes": "component/models/quantization.py",
    "flash_attn": "component/models/attention.py",
    "liger_kernel": "component/trainers/liger.py",
    "deepspeed": None,
    "vllm": None,
    "xformers": None,
}
#: Packages that take a second or more to import, or must not come before Unsloth.
HEAVY = {
    "accelerate", "datasets", "huggingface_hub", "matplotlib", "numpy", "pandas", "peft", "pyarrow", "rich",
    "safetensors", "sklearn", "tokenizers", "torch", "transformers", "trl", *WRAPPERS,
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module: where, and whether it happens when the file is imported, or for a type checker only."""

    file: str
    line: int
    module: str
    is_top_level: bool
    is_for_types: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def part(self) -> str | None:
        """The part of component/ that it names."""
        names = self.module.split(".")
        return names[1] if names[0] == "component" and len(names) > 1 else None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def read_imports(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), str(path.relative_to(ROOT)), True, False))


def _walk(node: ast.AST, file: str, is_top_level: bool, is_for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for module in _modules(child, file):
            yield Import(file, child.lineno, module, is_top_level, is_for_types)  # type: ignore[attr-defined]
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(child, file, is_top_level and not is_function, is_for_types or types_only)


def _modules(node: ast.AST, file: str) -> list[str]:
    """Modules that a statement imports; `importlib.import_module("x")` counts."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{file}:{node.lineno}: a relative import; write component...."
        if node.module == "component":
            return [f"component.{alias.name}" for alias in node.names]
        return [node.module or ""]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    return []


COMPONENT = [item for path in sorted((ROOT / "component").rglob("*.py")) for item in read_imports(path)]
DOOR_FILES = [ROOT / "train.py", *sorted((ROOT / "script").rglob("*.py"))]
BASELINES = "script/baselines/"


def part_of(file: str) -> str:
    return Path(file).parts[1].removesuffix(".py")


def test_the_walk_finds_what_there_is() -> None:
    parts = {part_of(item.file) for item in COMPONENT} - {"__init__"}
    assert parts <= set(ALLOWED)
    assert parts >= {"registry", "config", "runtime", "data", "models", "planning", "artifacts", "trainers", "pipeline"}
    assert len(COMPONENT) > 300
    assert any(item.is_for_types for item in COMPONENT)
    assert any(item.package == "unsloth" for item in COMPONENT)


def test_parts_import_only_what_lies_below_them() -> None:
    """Imports for type checkers count: a part must not know the types of one that it may not use."""
    wrong = [
        str(item)
        for item in COMPONENT
        if item.part and item.part != part_of(item.file) and item.part not in ALLOWED[part_of(item.file)]
    ]
    assert wrong == []


def test_doors_stand_on_the_pipeline() -> None:
    used = [item for path in DOOR_FILES for item in read_imports(path) if item.part and item.part not in DOORS]
    assert {(item.file, item.module) for item in used} - DOOR_EXCEPTIONS == set()


def test_config_and_registry_need_little() -> None:
    wrong = [
        str(item)
        for item in COMPONENT
        if part_of(item.file) in PACKAGES
        and item.package not in {"component", *sys.stdlib_module_names, *PACKAGES[part_of(item.file)]}
        and (item.is_top_level or part_of(item.file) != "runtime")
    ]
    assert wrong == []


@pytest.mark.parametrize("package", WRAPPERS)
def test_optional_packages_are_imported_where_they_are_wrapped(package: str) -> None:
    importers = {item.file for item in COMPONENT if item.package == package}
    assert importers <= {WRAPPERS[package]}
    doors = {item.file for path in DOOR_FILES for item in read_imports(path) if item.package == package}
    assert {file for file in doors if not file.startswith(BASELINES)} == set()


def test_optional_packages_are_imported_in_functions() -> None:
    assert [str(item) for item in COMPONENT if item.package in WRAPPERS and item.is_top_level] == []


def _file_of(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@pytest.mark.parametrize(
    "door",
    [
        "train.py",
        "script/chat.py",
        "script/evaluate.py",
        "script/inspect_data.py",
        "script/plan.py",
        "component/pipeline/choose_loader.py",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_known_what_is_wanted(door: str) -> None:
    """All that a door imports when it starts, through however many modules: the loader is chosen after that."""
    waiting, seen, heavy = [ROOT / door], set(), []
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for item in read_imports(path):
            if not item.is_top_level or item.is_for_types:
                continue
            if item.package in HEAVY:
                heavy.append(str(item))
            names = item.module.split(".")
            parents = [".".join(names[: end + 1]) for end in range(len(names))] if names[0] == "component" else []
            waiting += [file for file in map(_file_of, parents) if file]
    assert heavy == []
    assert len(seen) > 3
