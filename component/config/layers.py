"""The layers of a config: the file, its bases, and the command line; merged, each value with its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.coerce import CoercionError, coerce
from component.config.errors import COMMAND_LINE, Place, Problem
from component.config.json_text import parse_json
from component.config.legacy import DROPPED, RENAMED, RENAMED_VALUES, SHARES, SWITCHES
from component.config.nodes import MAX_DEPTH, Node, excerpt, join_surrogates
from component.config.override_text import explain_broken
from component.config.schema import FILE_KEYS
from component.config.yaml_text import parse_scalar, parse_yaml

PARSERS = {".json": parse_json, ".yaml": parse_yaml, ".yml": parse_yaml}
MAX_FILES = 100
"""Files that a config may build on; bases that are named twice at each of many levels would make millions."""

PYTHON_CONFIG = Place("config")
PYTHON_OVERRIDES = Place("arguments")


@dataclass(frozen=True)
class Layer:
    """One source of values, its legacy names translated already."""

    name: str
    values: Mapping[str, Node]


class LayerReader:
    """Reads files with their bases; problems and notices are collected, nothing is raised.

    Attributes:
        problems: what is wrong with the sources themselves.
        notices: what was translated or left out.
        order: the sources, lowest layer first; problems are printed in this order.
        switched_off: switches of other frameworks that the last layer with them has as false, and where.
        is_complete: whether every file could be read; else keys may be missing for that reason alone.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notices: list[Problem] = []
        self.order: list[str] = []
        self.switched_off: dict[str, Place] = {}
        self.is_complete = True
        self._num_files = 0

    def read_file(self, path: str, chain: tuple[str, ...] = (), named_at: Place | None = None) -> list[Layer]:
        """Return the layers of `path`: those of its bases first, itself last."""
        self._num_files += 1
        if self._num_files > MAX_FILES:
            self.is_complete = False
            if self._num_files == MAX_FILES + 1:
                self._report(named_at, "base", f"more than {MAX_FILES} files build on each other", "use fewer bases")
            return []
        identity = os.path.realpath(path.replace("\0", ""))
        if identity in chain:
            loop = " -> ".join(os.path.relpath(link) for link in (*chain[chain.index(identity) :], identity))
            self._report(named_at, "base", f"the files build on each other: {loop}", "remove one link")
            self.is_complete = False
            return []
        node = self._parse_file(path, named_at)
        if node is None:
            self.is_complete = False
            self.order.append(path)
            return []
        layers = []
        for base, place in self._bases(node):
            layers += self.read_file(_relative_to(path, base), (*chain, identity), place)
        self.order.append(path)
        return [*layers, self._layer(path, node.value)]

    def read_mapping(self, values: Mapping[str, Any], place: Place = PYTHON_CONFIG) -> list[Layer]:
        """Return the layers of a mapping given from Python; its bases are relative to the working directory."""
        node = self._node_from(values, place)
        layers = []
        for base, named_at in self._bases(node):
            layers += self.read_file(base, (), named_at)
        self.order.append(place.source)
        return [*layers, self._layer(place.source, node.value)]

    def read_overrides(self, overrides: Iterable[str] | Mapping[str, Any]) -> Layer:
        """Return the layer of `KEY=VALUE` texts; VALUE is parsed like a YAML value and dots reach into mappings.

        A list or mapping that cannot be read is a problem, and not a text, where the key takes one. A mapping of keys
        to values, as the Python API takes it, is a layer as it is.
        """
        if isinstance(overrides, Mapping):
            self.order.append(PYTHON_OVERRIDES.source)
            values = dict(self._node_from(overrides, PYTHON_OVERRIDES).value)
            self._refuse_file_keys(values, PYTHON_OVERRIDES)
            return self._layer(PYTHON_OVERRIDES.source, values)
        values = {}
        self.order.append(COMMAND_LINE.source)
        for override in overrides:
            name, equals, text = override.partition("=")
            head, *path = name.strip().removeprefix("--").split(".")
            if not equals or not all((head, *path)):
                is_file = not equals and Path(override).suffix.lower() in PARSERS
                fix = 'give one file, or name this one under its "base"' if is_file else "write it as lora_rank=16"
                self._report(COMMAND_LINE, excerpt(override), "not a KEY=VALUE", fix)
                continue
            value = parse_scalar(text)
            broken = None if path else explain_broken(head, text, value)
            if broken:
                self._report(COMMAND_LINE, head, *broken)
                continue
            for part in reversed(path[:MAX_DEPTH]):
                value = {part: value}
            values = dict(merge(values, {head: self._node_from(value, COMMAND_LINE, (head,))}))
        self._refuse_file_keys(values, COMMAND_LINE)
        return self._layer(COMMAND_LINE.source, values)

    def _report(self, place: Place, key: str, what: str, fix: str) -> None:
        self.problems.append(Problem(place, key, what, fix))

    def _refuse_file_keys(self, values: dict[str, Node], place: Place) -> None:
        for key in FILE_KEYS:
            if values.pop(key, None) is not None:
                self._report(place, key, "only a file can set it", "write it in the train_args file")

    def _node_from(self, value: Any, place: Place, path: tuple[str, ...] = ()) -> Node:
        """A value that comes from Python or the command line, as nodes at one place."""
        if len(path) > MAX_DEPTH:
            self._report(place, path[0], f"nested deeper than {MAX_DEPTH} levels", "flatten the value")
            return Node(None, place, place)
        if isinstance(value, Mapping):
            items = {str(key): self._node_from(item, place, (*path, str(key))) for key, item in value.items()}
            return Node(items, place, place)
        if isinstance(value, (list, tuple)):
            return Node([self._node_from(item, place, (*path, "[]")) for item in value], place, place)
        if isinstance(value, str) and join_surrogates(value)[0] != value:
            self._report(place, excerpt(".".join(path)), "not Unicode text", "write it as UTF-8")
            return Node("?", place, place)
        return Node(value, place, place)

    def _parse_file(self, path: str, named_at: Place | None) -> Node | None:
        place, key = (named_at, "base") if named_at else (Place(path or '""'), "")
        parser = PARSERS.get(Path(path).suffix.lower())
        if parser is None:
            what = f"{path} is not a train_args file by its name" if path else "an empty file name"
            self._report(place, key, what, "name a file that ends in .json, .yaml or .yml")
            return None
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except FileNotFoundError:
            hint = " (a base is relative to its file)" if named_at else ""
            self._report(place, key, f"no such file: {os.path.abspath(path)}", f"correct the path{hint}")
            return None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            self._report(Place(path, line, 1), "", "not UTF-8 text", "save the file as UTF-8")
            return None
        except (OSError, ValueError) as error:  # a ValueError for a NUL character in the name
            reason = getattr(error, "strerror", None) or error
            self._report(place, key, f"cannot read {os.path.abspath(path)}: {reason}", "name a file that can be read")
            return None
        node, problems = parser(text, path)
        self.problems += problems
        return node

    def _bases(self, node: Node) -> list[tuple[str, Place]]:
        base = node.value.get("base")
        if base is None:
            return []
        items = base.value if isinstance(base.value, list) else [base]
        wrong = [item for item in items if not isinstance(item.value, str)]
        for item in wrong:
            self._report(item.place, "base", "not a file name", 'write "base": ["base/sft.json"]')
            self.is_complete = False
        return [(item.value, item.place) for item in items if isinstance(item.value, str)]

    def _layer(self, name: str, values: Mapping[str, Node]) -> Layer:
        return Layer(name, self._translate({key: node for key, node in values.items() if key not in FILE_KEYS}))

    def _translate(self, values: Mapping[str, Node]) -> dict[str, Node]:
        translated: dict[str, Node] = {}
        for key, node in values.items():
            place = node.key_place or node.place
            if key in DROPPED:
                self.notices.append(Problem(place, key, "ignored", DROPPED[key]))
                continue
            if key in SWITCHES:
                self._translate_switch(key, node, values, translated)
                continue
            name = RENAMED.get(key, key)
            if name != key:
                if name in values:
                    self._report(place, key, f"an old name of {name}, which is set too", "keep one of them")
                    continue
                if key in SHARES and _is_count(node.value):
                    what = f"got {node.value}, and {key} is a share below 1"
                    self._report(node.place, key, what, f"write {name} for a number of steps")
                    continue
                self.notices.append(Problem(place, key, f"an old name, read as {name}", f"write {name}"))
            translated[name] = self._translate_value(name, node)
        return translated

    def _translate_switch(self, key: str, node: Node, values: Mapping[str, Node], translated: dict[str, Node]) -> None:
        name, value = SWITCHES[key]
        place = node.key_place or node.place
        try:
            is_on = coerce(node.value, bool)
        except CoercionError as error:
            self._report(node.place, key, error.what, error.fix)
            return
        self.switched_off.pop(key, None)
        if not is_on:
            self.switched_off[key] = place
            self.notices.append(Problem(place, key, "ignored", f"train_mode and {name} say what is done"))
        elif name in values or name in translated:
            self._report(place, key, f"another way to write {name}, which is set too", "keep one of them")
        else:
            self.notices.append(Problem(place, key, f"read as {name}: {value}", f"write {name}"))
            translated[name] = Node(value, node.place, node.key_place)

    def _translate_value(self, key: str, node: Node) -> Node:
        if isinstance(node.value, list):
            return Node([self._translate_value(key, item) for item in node.value], node.place, node.key_place)
        new = RENAMED_VALUES.get((key, node.value)) if isinstance(node.value, str) else None
        if new is None:
            return node
        self.notices.append(Problem(node.place, key, f"{node.value} is an old name, read as {new}", f"write {new}"))
        return Node(new, node.place, node.key_place)


def merge(lower: Mapping[str, Node], upper: Mapping[str, Node]) -> Mapping[str, Node]:
    """Merge two layers: mappings by key, everything else replaced by the upper."""
    merged = dict(lower)
    for key, node in upper.items():
        old = merged.get(key)
        if old is not None and isinstance(old.value, dict) and isinstance(node.value, dict):
            node = Node(dict(merge(old.value, node.value)), node.place, node.key_place)
        merged[key] = node
    return merged


def merge_layers(layers: Sequence[Layer]) -> dict[str, Node]:
    """Merge layers, lowest first."""
    merged: Mapping[str, Node] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    return dict(merged)


def _is_count(value: Any) -> bool:
    try:
        return coerce(value, float) >= 1
    except CoercionError:
        return False


def _relative_to(path: str, base: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), base))
