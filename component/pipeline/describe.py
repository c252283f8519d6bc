"""What a prepared run will do, as text: the report of `--dry_run`; its part on the data is inspect_data.py's too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from component.artifacts.data_card import data_card
from component.artifacts.data_facts import DataFacts
from component.artifacts.terminal import terminal_width, uses_color
from component.config.load import Config
from component.config.schema import schema_fields
from component.config.settle import without_foreign_values
from component.models.decoder_layers import check_skipped, check_trained
from component.models.preparing import num_layers
from component.pipeline.hints import check_hints
from component.pipeline.plan_inputs import offline_model_config
from component.pipeline.plan_run import data_size, plan_prepared
from component.pipeline.prepare import PreparedRun
from component.pipeline.show_plan import plan_text
from component.pipeline.steps import num_optimizer_steps, num_rows_per_step

NUM_SAMPLES = 3


def describe_check(config: Config) -> Iterator[str]:
    """Lines of `--check`: what was translated or is ignored, hints, and the verdict.

    Raises:
        UserError: the model's config.json is at hand or known, and has fewer layers than the config skips or trains.
    """
    section = without_foreign_values(config).model
    skipped, trained = section.checkpoint_skip_layers, section.freeze_trainable_layers
    known = offline_model_config(section.model_name_or_path) if skipped or trained else None
    check_skipped(skipped, num_layers(known or {}))
    check_trained(trained, num_layers(known or {}))
    yield from (str(notice) for notice in config.notices)
    yield from (f"hint: {hint}" for hint in check_hints(config))
    model = config.model
    folder = config.written["output_dir"]
    yield f"{config.path or 'config'}: valid; {model.task_type}, {model.train_mode}, output to {folder}"


def describe_run(prepared: PreparedRun) -> Iterator[str]:
    """Lines of `--dry_run`: samples with their supervised text marked, the data, defaults, what will run, its plan."""
    # This imports torch, which must come after Unsloth: `prepare` has seen to that.
    from component.pipeline.data_facts import data_facts

    config, data = prepared.config, prepared.data
    yield data_text(data_facts(prepared, config.training, samples=islice(data.train, NUM_SAMPLES)))
    yield ""
    hardware = prepared.hardware
    yield f"device: {hardware.name}, {hardware.free_memory_bytes / 2**30:.1f} GiB free"
    yield f"loader: {prepared.loader.got} ({prepared.loader.reason})"
    precision = prepared.precision
    yield f"precision: weights {precision.load_dtype}, computation {precision.compute_dtype}"
    yield from (f"default: {key}: {value}" for key, value in resolved_defaults(config).items())
    num_rows = data_size(prepared).num_rows
    steps, rows = num_optimizer_steps(config.training, num_rows), num_rows_per_step(config.training)
    yield f"steps: {steps:,} optimizer steps of {rows:,} rows each"
    yield f"output: {config.run.output_dir}"
    planned = plan_prepared(prepared)
    unknown = "plan: none; the layers of this model family are not known to the planner"
    yield from ("", unknown if planned is None else plan_text(planned, config), "")
    of_plan = () if planned is None else planned.notices
    yield from (f"notice: {notice}" for notice in (*prepared.notices, *precision.notices, *of_plan))
    yield from (f"hint: {hint}" for hint in prepared.hints)


def data_text(facts: DataFacts, *, whole_samples: bool = False) -> str:
    """What is known of a run's data, for the terminal.

    Args:
        whole_samples: leave nothing out of the samples, however long they are.
    """
    return data_card(facts, color=uses_color(), width=terminal_width(), whole_samples=whole_samples)


def resolved_defaults(config: Config) -> dict[str, object]:
    """Keys that no layer set and whose default depends on other keys, with the value they got."""
    return {
        key: config.values[key]
        for key, item in schema_fields().items()
        if key in config.written
        and key not in config.places
        and item.default is None
        and config.values[key] is not None
    }
