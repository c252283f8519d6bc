"""The section of the run as an artifact."""

from __future__ import annotations

from dataclasses import dataclass

from component.config.keys import key


@dataclass(frozen=True)
class RunSection:
    """The run as an artifact: where it goes, and what of the user's own takes part."""

    output_dir: str = key("", "Folder of the run.", default_note="output/<config path>", path=True, cosmetic=True)
    plugins: list[str] = key([], "Python files that register components of your own.", one_or_many=True, path=True)
    accepted_hints: list[str] = key(
        [],
        "Keys whose hints are not wanted, since the choice is meant (docs/hyperparameters.md).",
        one_or_many=True,
        cosmetic=True,
    )
