"""The schema for readers: a JSON Schema for editors, and the reference page docs/config.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields
from typing import Any, get_type_hints

from omegaconf import MISSING

from component.config.choices import named_choices
from component.config.coerce import describe_type, json_schema
from component.config.legacy import DROPPED, RENAMED, RENAMED_VALUES, SWITCHES
from component.config.resolve import DEPENDENT_KEYS
from component.config.schema import FILE_KEYS, SECTIONS, schema_fields

#: JSON Schema's words for the limits of a key.
BOUNDS = {"minimum": "minimum", "above": "exclusiveMinimum", "maximum": "maximum", "below": "exclusiveMaximum"}

FILE_KEY_HELP = {
    "base": "Files that this one builds on, relative to it, recursively; a later one wins.",
    "$schema": "Where an editor finds the JSON Schema of configs.",
}

PAGE_HEAD = """# Configuration keys

Generated from `component/config/sections/` by `python script/write_docs.py`; do not edit.

A config is a JSON or YAML file of the keys below; `model_name_or_path` and `train_file` must be set. Layers, later
wins: the defaults here < the files named in `base` < the file < `KEY=VALUE` on the command line, where dots reach into
mappings (`lr_scheduler_kwargs.min_lr_rate=0.1`). Mappings merge by key, lists replace. Paths are relative to the
working directory, except those in `base`.

A value may refer to another key, `${seed}`, or to an environment variable, `${oc.env:NAME}` or
`${oc.env:NAME,default}`; what comes from a variable is never written to the run folder. `\\${` stands for the plain
characters.

`python train.py --train_args_file FILE --check` checks a file. A key that the chosen task, mode or loader does not read
is a notice; an unknown one is an error. `python train.py --schema` prints a JSON Schema; save it and name it in a
config's `"$schema"` for completion and checks in an editor.
"""


def json_schema_text() -> str:
    """The JSON Schema (draft 2020-12) of a train_args file."""
    types = _types()
    properties: dict[str, Any] = {
        "$schema": {"type": "string", "description": FILE_KEY_HELP["$schema"]},
        "base": {
            "description": FILE_KEY_HELP["base"],
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
    }
    for key, item in schema_fields().items():
        properties[key] = _property(key, item, types[key])
    for old, new in RENAMED.items():
        properties[old] = {**properties[new], "description": f"Old name of {new}.", "deprecated": True}
    for old, (new, value) in SWITCHES.items():
        properties[old] = {"type": "boolean", "description": f"Read as {new}: {value}.", "deprecated": True}
    for old, reason in DROPPED.items():
        properties[old] = {"description": f"Ignored: {reason}.", "deprecated": True}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lampyris train_args",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def reference_page() -> str:
    """The text of docs/config.md."""
    return "\n".join([PAGE_HEAD, *_sections(), *_other_names()]) + "\n"


def _property(key: str, item: Any, annotation: Any) -> dict[str, Any]:
    schema = dict(json_schema(annotation))
    for limit, word in BOUNDS.items():
        if item.metadata[limit] is not None:
            schema = _bounded(schema, word, item.metadata[limit])
    if key in named_choices():
        schema = _named(schema, key)
    if item.metadata["one_or_many"]:
        schema = {"anyOf": [schema.get("items", {"type": "string"}), *schema.get("anyOf", [schema])]}
    default = item.default_factory() if item.default is NO_DEFAULT else item.default
    # a reference such as "${seed}" may stand for a value of any type
    alternatives = [*schema.pop("anyOf", [schema]), {"type": "string", "pattern": r"\$\{.+\}"}]
    described: dict[str, Any] = {"description": item.metadata["help"], "anyOf": alternatives}
    if default != MISSING:
        described["default"] = default
    return described


def _named(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """Narrow the text in a schema to the names of a key, old ones included."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_named(option, key) for option in schema["anyOf"]]}
    if schema.get("type") == "array":
        return {**schema, "items": _named(schema["items"], key)}
    if schema.get("type") != "string":
        return schema
    names = {"enum": [*named_choices()[key], *(old for (name, old) in RENAMED_VALUES if name == key)]}
    return {"anyOf": [names, {"type": "string", "pattern": r"\.jinja$"}]} if key == "template_name" else names


def _bounded(schema: dict[str, Any], word: str, bound: float) -> dict[str, Any]:
    if "anyOf" in schema:
        return {**schema, "anyOf": [_bounded(option, word, bound) for option in schema["anyOf"]]}
    return {**schema, word: bound} if schema.get("type") in ("integer", "number") else schema


def _sections() -> Iterator[str]:
    seen: set[str] = set()
    types = _types()
    for name, section in SECTIONS.items():
        # keys of the section itself first, then those that it shares with other sections
        own = list(section.__annotations__)
        rows = sorted((item for item in fields(section) if item.name not in seen), key=lambda row: row.name not in own)
        seen |= {item.name for item in rows}
        yield f"## {name}\n\n{section.__doc__.strip().splitlines()[0]}\n"
        yield "| key | type | default | meaning | read by |\n|---|---|---|---|---|"
        for item in rows:
            kind = describe_type(types[item.name])
            kind = f"text or {kind}" if item.metadata["one_or_many"] else kind
            kind += " (names below)" if item.name in named_choices() else ""
            meaning = item.metadata["help"] + _limits(item.metadata)
            cells = (f"`{item.name}`", kind, _default(item), meaning, _readers(item))
            yield f"| {' | '.join(map(_cell, cells))} |"
        yield ""


def _other_names() -> Iterator[str]:
    yield "## Keys about the file itself\n"
    yield from (f"- `{key}`: {FILE_KEY_HELP[key]}" for key in FILE_KEYS)
    yield "\n## Names of values\n"
    for key, names in named_choices().items():
        yield f"- `{key}`: {'a .jinja file, ' if key == 'template_name' else ''}{', '.join(names)}"
    yield "\n## Old names, translated with a notice\n"
    yield from (f"- `{old}`: `{new}`" for old, new in RENAMED.items())
    yield from (f"- `{old}` where it is true: `{new}: {value}`" for old, (new, value) in SWITCHES.items())
    yield from (f"- `{key}: {old}`: `{new}`" for (key, old), new in RENAMED_VALUES.items())
    yield "\n## Old keys, left out with a notice\n"
    yield from (f"- `{key}`: {reason}" for key, reason in DROPPED.items())


def _types() -> dict[str, Any]:
    return {name: hint for section in SECTIONS.values() for name, hint in get_type_hints(section).items()}


def _default(item: Any) -> str:
    default = item.default_factory() if item.default is NO_DEFAULT else item.default
    if default == MISSING:
        return "must be set"
    by_task, by_mode = item.metadata["default_by_task"] or {}, item.metadata["default_by_mode"] or {}
    special = [f"{task}: {_short(value)}" for task, value in by_task.items()]
    special += [f"{task}: {_by_value(values)}" for task, values in by_mode.items()]
    return "; ".join(special) or item.metadata["default_note"] or f"`{json.dumps(default)}`"


def _by_value(values: Mapping[str, Any]) -> str:
    """Each value with the modes that have it."""
    modes = {value: [mode for mode in values if values[mode] == value] for value in values.values()}
    return " and ".join(f"{_short(value)} with {', '.join(names)}" for value, names in modes.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _limits(metadata: Any) -> str:
    words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}
    limits = [f"{word} {metadata[limit]:.12g}" for limit, word in words.items() if metadata[limit] is not None]
    return f" ({', '.join(limits)})" if limits else ""


def _readers(item: Any) -> str:
    metadata = item.metadata
    readers = [", ".join(metadata[kind]) for kind in ("tasks", "modes", "loaders") if metadata[kind]]
    if item.name in DEPENDENT_KEYS:
        readers.append(f"with {DEPENDENT_KEYS[item.name][0]}")
    return "; ".join(readers) or "all"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
