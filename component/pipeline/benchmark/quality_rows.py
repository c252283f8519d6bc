"""Rows of suite `quality`: what a seed trains on, what rates are chosen on, and questions that no run has seen."""

from __future__ import annotations

import itertools
import json
import random
import runpy
from pathlib import Path

from component.pipeline.benchmark.locked_file import write_if_changed
from component.runtime.environment import REPOSITORY

TEXTS, TRAIN, HELD_OUT = (REPOSITORY / f"data/demo/{name}.jsonl" for name in ("pretrain", "train", "held_out"))
#: Of the demo's 240 rows, those that a seed leaves out; rates are chosen on them.
NUM_LEFT_OUT = 40
#: Of the questions, the same for all seeds.
QUESTIONS_SEED = 2026


def write_rows(folder: Path, seed: int, *, num_rows: int) -> tuple[Path, Path]:
    """Divide the demo's training rows by a seed: those to train on, and those left out."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = _lines(TRAIN)
    random.Random(seed).shuffle(lines)
    parts = {f"train-{num_rows}": lines[NUM_LEFT_OUT:][:num_rows], "left-out": lines[:NUM_LEFT_OUT]}
    paths = tuple(folder / f"{name}-{seed}.jsonl" for name in parts)
    for path, part in zip(paths, parts.values(), strict=True):
        write_if_changed(path, "".join(part))
    return paths  # type: ignore[return-value]


def write_questions(folder: Path, *, num_questions: int) -> Path:
    """Write the demo's held-out questions and more of their kind, up to so many.

    The demo's two files ask for 288 of the 768 phrases that there are. Questions for others are new to every run as
    well, though the base may have read their answers in Glow texts, without what they mean; of 48 questions one is two
    points.
    """
    folder.mkdir(parents=True, exist_ok=True)
    demo = runpy.run_path(str(REPOSITORY / "data/demo/make_demo_data.py"))  # data, which nothing can import
    held_out, rng = _lines(HELD_OUT), random.Random(QUESTIONS_SEED)
    asked = {json.loads(line)["conversation"][0]["assistant"] for line in [*_lines(TRAIN), *held_out]}
    phrases = itertools.product(demo["NUMBERS"], demo["COLOURS"], demo["ANIMALS"])
    others = [phrase for phrase in phrases if demo["translate"](phrase) not in asked]
    rng.shuffle(others)
    more = [json.dumps(demo["conversation"](phrase, rng)) + "\n" for phrase in others]
    path = folder / f"questions-{num_questions}.jsonl"
    write_if_changed(path, "".join([*held_out, *more][:num_questions]))
    return path


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)
