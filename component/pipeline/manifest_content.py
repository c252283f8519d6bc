"""What run.json says of a run before its first step."""

from __future__ import annotations

from typing import Any

from component.pipeline.open_run import hash_config
from component.pipeline.plan_run import plan_prepared
from component.pipeline.prepare import PreparedRun
from component.runtime.allocator import allocator_settings
from component.runtime.distributed import world_size
from component.runtime.environment import REPOSITORY, environment_facts
from component.runtime.redaction import redact


def manifest_content(prepared: PreparedRun) -> dict[str, Any]:
    """The sections of a manifest that are known once the data is prepared."""
    config, data, loader = prepared.config, prepared.data, prepared.loader
    data_seed = config.training.data_seed
    return {
        "notices": [redact(notice) for notice in prepared.notices],
        "hints": [redact(str(hint)) for hint in prepared.hints],
        "config": dict(config.written),
        "config_sources": {key: str(place) for key, place in config.places.items()},
        "loader": {"asked": loader.asked, "got": loader.got, "reason": loader.reason},
        "seeds": {"seed": config.model.seed, "data_seed": config.model.seed if data_seed is None else data_seed},
        "hashes": {"config": hash_config(config.written), "data": data.fingerprint, **prepared.rendering.hashes},
        "data": {
            "train": data.report.to_dict(),
            "evaluation": data.eval_report.to_dict() if data.eval_report else None,
        },
        "plan": plan_content(prepared),
        "auto": dict(prepared.auto),
        "environment": {
            **environment_facts(REPOSITORY),
            "cuda_allocator": allocator_settings(),
            "num_processes": world_size(),
        },
    }


def plan_content(prepared: PreparedRun) -> dict[str, Any]:
    """The prediction of a run, and the place of what is measured."""
    planned = plan_prepared(prepared)
    return {"predicted": planned.plan.to_dict() if planned else None, "measured": None}
