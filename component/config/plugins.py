"""Loading of the user's own components: each plugin is a Python file that registers them when it is executed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import ModuleType

from component.config.errors import Place, Problem


class PluginError(Exception):
    """A Python file of the user's cannot be executed.

    Args:
        what: what is wrong with which file.
        fix: what to do.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


def execute_file(path: str, *, again_if_changed: bool = False) -> ModuleType:
    """Execute a Python file once in this process; asked for again, the same module is returned.

    Args:
        path: relative to the working directory.
        again_if_changed: execute a file that has another content than when it was executed.

    Raises:
        PluginError: it is missing, or raises.
    """
    full_path = os.path.abspath(path)
    name = f"lampyris_plugin_{hashlib.sha256(full_path.encode()).hexdigest()[:12]}"
    if again_if_changed and os.path.isfile(full_path):
        with open(full_path, "rb") as file:
            name += hashlib.sha256(file.read()).hexdigest()[:12]
    if name in sys.modules:
        return sys.modules[name]
    if not os.path.isfile(full_path):
        raise PluginError(f"no such file: {full_path}", "correct the path")
    spec = importlib.util.spec_from_file_location(name, full_path)
    if spec is None:
        raise PluginError(f"{path} is not a Python file by its name", "name it .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's program: whatever it raises is theirs to mend
        del sys.modules[name]
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == full_path]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None) or 1
        raise PluginError(f"{path}:{line}: {type(error).__name__}: {error}", "mend the file") from error
    return module


def load_plugins(paths: Iterable[str], place: Place) -> Iterator[Problem]:
    """Execute each plugin file once in this process.

    Args:
        paths: Python files, relative to the working directory.
        place: where the config names them, for messages.

    Yields:
        A problem for a file that is missing or raises.
    """
    for path in paths:
        try:
            execute_file(path)
        except PluginError as error:
            yield Problem(place, "plugins", str(error), error.fix)
