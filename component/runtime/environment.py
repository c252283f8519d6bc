"""Facts about machine, software and checkout that a run records; no environment variables, no host or user names."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from component.runtime.hardware import cpu_name

#: Root of this checkout.
REPOSITORY = Path(__file__).resolve().parents[2]
# Not required, but they change kernels or results where they are installed.
OPTIONAL_PACKAGES = ("deepspeed", "flash-attn", "liger-kernel", "torchao", "triton", "vllm", "xformers")


def environment_facts(repository: Path) -> dict[str, Any]:
    """Collect what is needed to say on what a run was made; imports none of the packages it lists.

    Args:
        repository: root of the checkout, whose requirements files name the packages.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "num_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": nvidia_gpus(),
        "packages": package_versions(repository),
        "git": git_facts(repository),
    }


def package_versions(repository: Path) -> dict[str, str | None]:
    """Versions of the packages in requirements*.txt (None: not installed), and of the optional ones that are there."""
    versions: dict[str, str | None] = {}
    for file in sorted(repository.glob("requirements*.txt")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if name := re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line):
                versions[name[1]] = _version(name[1])
    for name in OPTIONAL_PACKAGES:
        version = _version(name)
        if version is not None:
            versions.setdefault(name, version)
    return dict(sorted(versions.items()))


def nvidia_gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each NVIDIA GPU of the machine; empty where nvidia-smi is absent or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    fields = ("name", "driver_version", "memory.total")
    answer = _output([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
    rows = [[cell.strip() for cell in line.split(",")] for line in (answer or "").splitlines()]
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows if len(row) == len(fields)]


def git_facts(repository: Path) -> dict[str, Any]:
    """Commit and branch of the checkout, whether its tracked files were changed, and a hash of all that is changed.

    `dirty` is as `git describe --dirty` has it: files that git does not know, such as results, do not make it so.
    `diff_sha256` covers the bytes of `git diff HEAD` and the names of untracked files; None when there is neither.
    Outside a checkout all values are None.
    """
    facts: dict[str, Any] = {"commit": None, "branch": None, "dirty": None, "diff_sha256": None}
    git = shutil.which("git")
    if git is None:
        return facts
    command = [git, "-C", str(repository)]
    top = _output([*command, "rev-parse", "--show-toplevel"])
    # A copy inside somebody else's checkout has no commit of its own.
    if top is None or Path(top.strip()).resolve() != repository.resolve():
        return facts
    commit = _output([*command, "rev-parse", "--verify", "HEAD"])
    if commit is None:
        return facts
    branch = _output([*command, "symbolic-ref", "--short", "HEAD"])
    diff = _output([*command, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff"]) or ""
    untracked = _output([*command, "ls-files", "--others", "--exclude-standard", "-z"]) or ""
    change = (diff + "\0" + untracked).encode("utf-8", "surrogateescape")
    return {
        "commit": commit.strip(),
        "branch": branch.strip() if branch else None,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(change).hexdigest() if diff or untracked else None,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    """Standard output of a program, byte for byte through surrogateescape; None when it fails."""
    try:
        answer = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode("utf-8", "surrogateescape") if answer.returncode == 0 else None
