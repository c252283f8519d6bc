"""The only place where the parts meet; train.py and the scripts stand on it.

`from component.pipeline import run` gives the Python API; nothing heavy is imported before it is called.
"""

from __future__ import annotations

from component.pipeline.run import run

__all__ = ["run"]
