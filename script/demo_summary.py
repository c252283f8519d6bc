"""Print what the demo reached, from its run folders and its answers; exit code 1 where that is too little."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TRAIN, HELD_OUT = "data/demo/train.jsonl", "data/demo/held_out.jsonl"
LEAST_SHARE = {TRAIN: 0.9, HELD_OUT: 0.7}


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def count_exact(answers: dict[str, Any], file: str) -> tuple[int, int]:
    """Return how many answers to the questions of `file` are exactly right, and how many there are."""
    exact = [example["exact"] for example in answers["examples"] if example["source"].rpartition(":")[0] == file]
    return sum(exact), len(exact)


def format_table(rows: list[tuple[str, str, str]]) -> str:
    """Align three columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)  # fmt: skip


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pretrain", "tuned", "before", "after"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    paths = parser.parse_args()
    pretrain, tuned = load_json(paths.pretrain / "run.json"), load_json(paths.tuned / "run.json")
    before, after = load_json(paths.before), load_json(paths.after)
    rows = [("", "from / before", "to / after")]
    for name, run in (("pretraining loss", pretrain), ("fine-tuning loss", tuned)):
        rows.append((name, f"{run['metrics']['first_loss']:.4f}", f"{run['metrics']['last_loss']:.4f}"))
    rows.append(("evaluation loss", "", f"{tuned['metrics']['eval_loss']:.4f}"))
    reached = True
    for name, file in (("training questions exactly right", TRAIN), ("held-out questions exactly right", HELD_OUT)):
        (right_before, total), (right_after, _) = count_exact(before, file), count_exact(after, file)
        rows.append((name, f"{right_before} of {total}", f"{right_after} of {total}"))
        reached = reached and right_before == 0 and right_after >= LEAST_SHARE[file] * total
    example = next(example for example in after["examples"] if example["source"].startswith(HELD_OUT))
    print(f"\n{format_table(rows)}\n\n{example['question']}  ->  {example['answer']}")
    print(f"loader: asked {tuned['loader']['asked']}, got {tuned['loader']['got']} ({tuned['loader']['reason']})")
    if not reached:
        print("demo: fewer answers are right than there should be: see the table", file=sys.stderr)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
