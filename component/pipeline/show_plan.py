"""The plan of a config as text, picture and JSON; script/plan.py is the door to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from component.artifacts.plan_card import plan_card
from component.artifacts.plan_picture import draw_plan
from component.artifacts.strict_json import to_json_text, write_atomically
from component.artifacts.terminal import terminal_width, uses_color
from component.config.load import Config
from component.pipeline.plan_facts import plan_facts
from component.pipeline.plan_run import PlannedRun, plan_config
from component.runtime.output_file import check_output_file
from component.runtime.redaction import hide


@dataclass(frozen=True)
class PlanOutputs:
    """Files to write."""

    png: Path | None = None
    json: Path | None = None


def show_plan(config: Config, gpu: str | None, outputs: PlanOutputs) -> Iterator[str]:
    """Plan a config, write what is asked for and give the report in lines.

    Raises:
        UserError: a file cannot be written, the card or the sizes of the model are not known.
    """
    hide(config.from_environment)
    for option, path in (("--png", outputs.png), ("--json", outputs.json)):
        if path is not None:
            check_output_file(option, path)
    planned = plan_config(config, gpu)
    if outputs.png is not None:
        draw_plan(plan_facts(planned, config), outputs.png)
    if outputs.json is not None:
        write_atomically(outputs.json, f"{to_json_text(planned.to_dict())}\n".encode())
    yield plan_text(planned, config)
    yield from (f"notice: {notice}" for notice in planned.notices)


def plan_text(planned: PlannedRun, config: Config) -> str:
    """A plan for the terminal."""
    return plan_card(plan_facts(planned, config), color=uses_color(), width=terminal_width())
