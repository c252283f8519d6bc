"""What a suite leaves: NAME.md with its tables, the raw NAME.json, and NAME.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from component.artifacts.strict_json import write_atomically
from component.pipeline.benchmark.case import Case
from component.pipeline.benchmark.results import Results

#: Packages whose versions stand under a table; the JSON has all.
NAMED_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "unsloth",
    "triton",
    "liger-kernel",
    "flash-attn",
)


def describe_surroundings(cases: Sequence[Case], results: Results) -> str:
    """On what and when the cases were measured; one sentence for each machine, installation or commit."""
    dates: dict[str, list[str]] = {}
    for case in cases:
        for run in results.runs(case):
            where = _describe(results.content["surroundings"][run["surroundings"]])
            dates.setdefault(where, []).append(run["date"][:10])
    return "\n".join(
        f"Measured {' to '.join(sorted({min(days), max(days)}))} on {where}." for where, days in dates.items()
    )


def _describe(facts: Mapping[str, Any]) -> str:
    gpus, git = facts["gpus"], facts["git"]
    machine = f"{gpus[0]['name']} ({gpus[0]['memory']}, driver {gpus[0]['driver']})" if gpus else facts["cpu"]
    versions = [f"{name} {facts['packages'][name]}" for name in NAMED_PACKAGES if facts["packages"].get(name)]
    changed = ", changed" if git.get("dirty") else ""
    commit = f"commit {git['commit'][:12]}{changed}" if git["commit"] else "no git commit"
    return f"{machine}; Python {facts['python']}, {', '.join(versions)}; {commit}"


def quick_note(what: str, device: str = "the CPU") -> str:
    """What stands above the tables of --quick.

    Args:
        what: was trained or prepared.
    """
    return (
        f"--quick: {what}, on {device}. It shows only that the suite runs: nothing that was measured here holds for "
        "models of real size."
    )


def write_text(output: Path, suite: str, parts: Sequence[str]) -> str:
    """Write NAME.md; returns its content."""
    content = "\n\n".join(part for part in parts if part)
    write_atomically(output / f"{suite}.md", content + "\n")
    return content
