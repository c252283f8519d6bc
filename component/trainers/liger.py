"""Whether Liger's fused kernels are used; neither torch nor Liger is imported."""

from __future__ import annotations

import ast
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from component.config.keys import LANGUAGE_MODEL_TASKS
from component.runtime.hardware import Hardware

#: Where liger-kernel 0.8 has the table of the families that it knows, and its name.
FAMILIES_FILE, FAMILIES_TABLE = "transformers/monkey_patch.py", "MODEL_TYPE_TO_APPLY_LIGER_FN"
TILED = "it would replace the MLPs that tiled_mlp computes in tiles"


@dataclass(frozen=True)
class LigerChoice:
    """What was decided.

    Attributes:
        asked: the value of `use_liger_kernel`.
        got: whether they are used.
        reason: why, in words for a person.
    """

    asked: bool | str
    got: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Its part of run.json."""
        return asdict(self)

    def notices(self) -> list[str]:
        """What was asked for and is not done; that another loader does not read the key is told elsewhere."""
        return [f"use_liger_kernel: not used: {TILED}"] if self.asked is True and self.reason == TILED else []


def choose_liger(
    asked: bool | str, *, task_type: str, loader: str, hardware: Hardware, model_type: str, is_tiled: bool = False
) -> LigerChoice:
    """Decide by what is known before the model is loaded.

    Args:
        asked: the value of `use_liger_kernel`; auto is for next-token tasks, others use it where it is true.
        model_type: family of the model, by config.json.
        is_tiled: whether MLPs are computed in tiles, which Liger's would replace; the config refuses both, but where
            Unsloth was asked for and the loader is another one.
    """
    if asked is False or (asked is True and loader != "vanilla"):
        return LigerChoice(asked, False, f"use_liger_kernel: {asked}".lower())
    if is_tiled:
        return LigerChoice(asked, False, TILED)
    if asked is True:
        return LigerChoice(asked, True, "use_liger_kernel: true")
    obstacle = _obstacle(task_type, loader, hardware, model_type)
    return LigerChoice(asked, obstacle is None, obstacle or f"it has kernels for {model_type}")


def _obstacle(task_type: str, loader: str, hardware: Hardware, model_type: str) -> str | None:
    if task_type not in LANGUAGE_MODEL_TASKS:
        return f"auto does not take it for task {task_type}"
    if loader != "vanilla":
        return f"the {loader} loader has its own kernels"
    if hardware.kind != "cuda":
        return f"it runs on CUDA GPUs, and this is {hardware.name}"
    missing = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed"
    families = known_families()
    if families is None:
        return f"the installed version has no {FAMILIES_TABLE} in {FAMILIES_FILE}"
    return None if model_type in families else f"it does not know the family {model_type!r}"


def known_families() -> frozenset[str] | None:
    """The families in the installed Liger's own table, read from its source; None where it is not found."""
    found = find_spec("liger_kernel")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / FAMILIES_FILE
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == FAMILIES_TABLE:
                keys = node.value.keys if isinstance(node.value, ast.Dict) else ()
                return frozenset(key.value for key in keys if isinstance(key, ast.Constant))
    return None
