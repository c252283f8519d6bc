"""Write the configs in train_args/ from the table of model families: `python script/write_configs.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.pipeline.shipped_configs import config_texts, write_configs, wrong_configs
from component.runtime.command import run_command

FOLDER = Path(__file__).resolve().parent.parent / "train_args"


def main() -> int:
    """Write what differs, or with --check say what does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 2 if a file is not as the table says")
    is_check = parser.parse_args().check
    changed = list(wrong_configs(FOLDER)) if is_check else write_configs(FOLDER)
    for path in changed:
        print(f"{path.relative_to(FOLDER.parent)}: {'not as the table says' if is_check else 'written'}")
    print(f"{len(config_texts())} configs, {len(changed)} {'wrong' if is_check else 'changed'}")
    return 2 if is_check and changed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
