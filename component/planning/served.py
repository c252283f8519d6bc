"""Whether the installed torch has kernels for a card, found out without importing it."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

#: CUDA's major version -> the oldest compute capability that its compiler still knows (CUDA 13 release notes). Builds
#: with older CUDA differ in what their makers left out.
OLDEST_CAPABILITY = {13: (7, 5)}


def torch_cuda_version() -> str | None:
    """CUDA version of the installed torch, "13.0"; "" for a build without, None where it cannot be told."""
    if "torch" in sys.modules:
        return sys.modules["torch"].version.cuda or ""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
        return _assigned(ast.parse(text), "cuda")
    except (OSError, SyntaxError, ValueError):
        return None


def explain_served(capability: tuple[int, int] | None) -> str:
    """In words, whether the installed torch serves a card of a compute capability."""
    version = torch_cuda_version()
    if version is None:
        return "unknown: no torch is installed here, or its build cannot be told"
    if not version:
        return "not by the one of this machine, a CPU build; a run needs a CUDA build"
    obstacle = why_not_served(capability)
    if obstacle is not None:
        return f"no: {obstacle}"
    if capability is None or _major(version) not in OLDEST_CAPABILITY:
        return f"unknown with CUDA {version}; torch.cuda.get_arch_list() tells"
    return f"yes: compute capability {capability[0]}.{capability[1]} with CUDA {version}"


def why_not_served(capability: tuple[int, int] | None) -> str | None:
    """Why the CUDA build that is installed has no kernels for a card; None where it has, or nothing is known."""
    version = torch_cuda_version()
    oldest = OLDEST_CAPABILITY.get(_major(version)) if version else None
    if oldest is None or capability is None or capability >= oldest:
        return None
    return (
        f"torch for CUDA {version} begins at compute capability {oldest[0]}.{oldest[1]}, and this card has "
        f"{capability[0]}.{capability[1]}; install a build for CUDA 12.6"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _assigned(tree: ast.Module, name: str) -> str | None:
    """The text that a module assigns to a name; "" for None."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if any(isinstance(target, ast.Name) and target.id == name for target in targets) and value is not None:
            return ast.literal_eval(value) or ""
    return None
