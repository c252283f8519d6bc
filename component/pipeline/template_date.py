"""The date that chat templates show: fixed at a run's first attempt, so that a later resume renders the same tokens."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from component.artifacts.manifest import Manifest
from component.config.load import Config


def fix_template_date(config: Config) -> Config:
    """Complete `template_date`: that of the run in output_dir if there is one, else today's.

    Raises:
        UserError: output_dir holds a run.json that cannot be read.
    """
    if config.data.template_date is not None or "template_date" not in config.written:
        return config
    folder = Path(config.run.output_dir)
    recorded = Manifest.load(folder).content["config"].get("template_date") if Manifest.exists(folder) else None
    chosen = recorded or date.today().isoformat()
    return replace(
        config,
        data=replace(config.data, template_date=chosen),
        values={**config.values, "template_date": chosen},
        written={**config.written, "template_date": chosen},
    )
