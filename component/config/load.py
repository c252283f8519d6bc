"""From files, bases and overrides to one typed, frozen config; all problems are found before any is raised."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from component.config.batches import ACCUMULATION, superseded_accumulation
from component.config.checks import check_choices, check_extra_arguments, check_limits, check_texts, explain_unknown
from component.config.coerce import CoercionError, coerce
from component.config.errors import ConfigError, Place, Problem
from component.config.interpolation import (
    environment_values,
    has_interpolation,
    reads_environment,
    resolve_interpolations,
)
from component.config.layers import LayerReader, merge_layers
from component.config.legacy import FOREIGN_VALUES
from component.config.nodes import Node, excerpt, plain
from component.config.plugins import load_plugins
from component.config.resolve import ignored_keys, resolve_defaults
from component.config.rules import Merged, apply_rules
from component.config.schema import (
    SECTIONS,
    AdapterSection,
    CPOSection,
    DataSection,
    DPOSection,
    GenerationSection,
    GRPOSection,
    KTOSection,
    ModelSection,
    ORPOSection,
    RewardSection,
    RunSection,
    TrainingSection,
    key_types,
    schema_fields,
)

MANDATORY_EXAMPLES = {
    "model_name_or_path": "Qwen/Qwen2.5-7B-Instruct",
    "train_file": "data/dummy_data.jsonl",
    "output_dir": "output/my-run",
}


@dataclass(frozen=True)
class Config:
    """A checked config: typed sections for the builders, and the flat view for reports.

    Attributes:
        values: every key with its final value.
        written: the keys that this run reads, with references to the environment left as written; fit for artifacts.
        places: where each key was set; keys at their default are absent.
        notices: what was translated or is ignored.
        path: the train_args file, None for a mapping.
        from_environment: values of environment variables that it refers to -> the reference; never to be shown.
    """

    model: ModelSection
    adapter: AdapterSection
    data: DataSection
    dpo: DPOSection
    kto: KTOSection
    orpo: ORPOSection
    cpo: CPOSection
    reward: RewardSection
    grpo: GRPOSection
    generation: GenerationSection
    run: RunSection
    training: TrainingSection
    values: Mapping[str, Any]
    written: Mapping[str, Any]
    places: Mapping[str, Place]
    notices: tuple[Problem, ...]
    path: str | None
    from_environment: Mapping[str, str]


def load_config(source: str | Path | Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = ()) -> Config:
    """Read, merge, check and type a config.

    Args:
        source: a JSON or YAML train_args file, or a mapping of keys.
        overrides: `KEY=VALUE` texts or a mapping of keys, which win over the source.

    Raises:
        ConfigError: with every problem of all layers, in the order of layers and positions.
    """
    reader = LayerReader()
    path = None if isinstance(source, Mapping) else str(source)
    layers = reader.read_mapping(source) if path is None else reader.read_file(path)
    layers.append(reader.read_overrides(overrides))
    return _Builder(reader, merge_layers(layers), path).build()


def default_output_dir(path: str) -> str:
    """`output/` and the path of the train_args file, without suffix, so that configs of two folders do not share one.

    The path is that below its train_args folder, else below the working directory; of a file elsewhere it is all of it.
    """
    parts = PurePath(path).with_suffix("").parts
    if "train_args" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("train_args")
        return str(PurePath("output", *parts[last + 1 :]))
    below = PurePath(os.path.relpath(PurePath(path).with_suffix("")))
    if ".." in below.parts:
        below = PurePath(*PurePath(os.path.abspath(below)).parts[1:])
    return str("output" / below)


def schema_defaults() -> dict[str, Any]:
    """Every key with its default; MISSING for the mandatory ones."""
    return {
        name: item.default_factory() if item.default is NO_DEFAULT else item.default
        for name, item in schema_fields().items()
    }


class _Builder:
    """Takes the merged layers through every check; each step adds its problems and goes on with what is sound."""

    def __init__(self, reader: LayerReader, nodes: Mapping[str, Node], path: str | None) -> None:
        self.problems = list(reader.problems)
        self.notices = list(reader.notices)
        self.order = tuple(reader.order)
        self.path = path
        self.is_complete = reader.is_complete
        self.switched_off = reader.switched_off
        fields = schema_fields()
        self.nodes = {key: node for key, node in nodes.items() if key in fields}
        for key, node in nodes.items():
            if key not in fields:
                place = node.key_place or node.place
                self.problems.append(Problem(place, excerpt(key), *explain_unknown(key, tuple(fields))))
        self.written = {key: plain(node) for key, node in self.nodes.items()}

    def build(self) -> Config:
        """The config of all layers.

        Raises:
            ConfigError: with every problem of the layers.
        """
        values = self._typed_values()
        if "plugins" in values:
            self.problems += load_plugins(values["plugins"], self.nodes["plugins"].place)
        for check in (check_limits, check_texts, check_choices, check_extra_arguments):
            self.problems += map(self._without_secret, check(values, self.nodes))
        refused = {problem.key for problem in self.problems}
        complete = {**schema_defaults(), **values}
        if self.is_complete:
            if complete["output_dir"] == "" and self.path:
                complete["output_dir"] = default_output_dir(self.path)
            self._check_mandatory(complete)
        places = {key: node.key_place or node.place for key, node in self.nodes.items()}
        sound = {key: value for key, value in complete.items() if key not in refused}
        merged = Merged(sound, self.written, places, self.order, self.switched_off)
        merged = self._without_superseded(merged, complete)
        self.problems += apply_rules(merged)
        if self.problems:
            raise ConfigError(sorted(set(self.problems), key=self._position))
        return self._config(resolve_defaults(complete), places)

    def _without_superseded(self, merged: Merged, complete: dict[str, Any]) -> Merged:
        """Drop the one key that others of a later layer take the place of, with a notice."""
        winner = superseded_accumulation(merged)
        if winner is None:
            return merged
        place = merged.places[ACCUMULATION]
        self.notices.append(Problem(place, ACCUMULATION, f"{complete[ACCUMULATION]} gives way to {winner}", ""))
        complete[ACCUMULATION] = None
        return replace(merged, values={**merged.values, ACCUMULATION: None})

    def _typed_values(self) -> dict[str, Any]:
        defaults = {key: value for key, value in schema_defaults().items() if value != MISSING}
        resolved, problems = resolve_interpolations(self.nodes, defaults)
        self.problems += problems
        types, fields = key_types(), schema_fields()
        values = {}
        for key, value in resolved.items():
            if fields[key].metadata["one_or_many"] and not isinstance(value, (list, dict, type(None))):
                value = [value]
            try:
                values[key] = coerce(value, types[key])
            except CoercionError as error:
                foreign = FOREIGN_VALUES.get((key, value)) if isinstance(value, str) else None
                fix = "refer to a fitting value" if has_interpolation(self.written[key]) else foreign or error.fix
                if value is None and key in MANDATORY_EXAMPLES:
                    fix = f"set it, for example {MANDATORY_EXAMPLES[key]}"
                problem = Problem(self.nodes[key].place, key, error.what, fix)
                self.problems.append(self._without_secret(problem))
        return values

    def _without_secret(self, problem: Problem) -> Problem:
        """A value from the environment may be a secret: no message shows it."""
        if not reads_environment(problem.key.split(".")[0], self.written):
            return problem
        what, fix = "the value from the environment does not fit", "set the variable to a fitting value"
        return Problem(problem.place, problem.key, what, fix)

    def _check_mandatory(self, values: Mapping[str, Any]) -> None:
        place = Place(self.path, 1, 1) if self.path else Place(self.order[0])
        reported = {problem.key for problem in self.problems}
        for key, example in MANDATORY_EXAMPLES.items():
            if values[key] in (MISSING, "", []) and key not in reported:
                self.problems.append(Problem(place, key, "missing", f"set it, for example {example}"))

    def _config(self, values: dict[str, Any], places: Mapping[str, Place]) -> Config:
        ignored = ignored_keys(values)
        self.notices += [Problem(places[key], key, "ignored", ignored[key]) for key in ignored if key in places]
        sections = {}
        for name, section in SECTIONS.items():
            own = {item.name: _escape(values[item.name]) for item in dataclasses.fields(section)}
            sections[name] = OmegaConf.to_object(OmegaConf.merge(_structured(section), own))
        written = {
            key: self.written[key] if reads_environment(key, self.written) else value
            for key, value in values.items()
            if key not in ignored
        }
        notices = tuple(sorted(set(self.notices), key=self._position))
        return Config(
            **sections,
            values=values,
            written=written,
            places=places,
            notices=notices,
            path=self.path,
            from_environment=environment_values(self.written),
        )

    def _position(self, problem: Problem) -> tuple[int, Problem]:
        source = problem.place.source
        return (self.order.index(source) if source in self.order else -1, problem)


@cache
def _structured(section: type) -> DictConfig:
    return OmegaConf.structured(section)


def _escape(value: Any) -> Any:
    """Protect what is left of `${` after interpolation from a second one."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return value
