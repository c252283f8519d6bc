"""Loading of the user's own components: each plugin is a Python file that registers them when it is executed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator

from component.config.errors import Place, Problem


def load_plugins(paths: Iterable[str], place: Place) -> Iterator[Problem]:
    """Execute each plugin file once in this process; a second load of the same file does nothing.

    Args:
        paths: Python files, relative to the working directory.
        place: where the config names them, for messages.

    Yields:
        A problem for a file that is missing or raises.
    """
    for path in paths:
        full_path = os.path.abspath(path)
        name = f"lampyris_plugin_{hashlib.sha256(full_path.encode()).hexdigest()[:12]}"
        if name in sys.modules:
            continue
        if not os.path.isfile(full_path):
            yield Problem(place, "plugins", f"no such file: {full_path}", "correct the path")
            continue
        spec = importlib.util.spec_from_file_location(name, full_path)
        if spec is None:
            yield Problem(place, "plugins", f"{path} is not a Python file by its name", "name it .py")
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # the user's program: whatever it raises is theirs to mend
            del sys.modules[name]
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == full_path]
            line = frames[-1].lineno if frames else getattr(error, "lineno", None) or 1
            what = f"{path}:{line}: {type(error).__name__}: {error}"
            yield Problem(place, "plugins", what, "mend the plugin")
