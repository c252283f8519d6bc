"""Merge an adapter into its base and save the whole model.

python script/merge_lora.py --model output/demo/sft-qlora
python script/merge_lora.py --model output/demo/sft-qlora --base dequantized --output output/demo/merged
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.runtime.command import non_empty, run_command


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=non_empty, help="run folder, adapter folder or hub id")
    parser.add_argument(
        "--output", type=non_empty, metavar="FOLDER", help="new or empty; beside the adapter, with -merged, by default"
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="of the result; the stored one of the base by default",
    )
    parser.add_argument(
        "--base",
        choices=("original", "dequantized"),
        default="original",
        help="for adapters of qlora runs: merge into the base's weights as they are, or into what quantization left of "
        "them, on which the adapter was trained",
    )
    return parser.parse_args()


def main() -> int:
    """Merge, and say what was made and how it can differ from what was trained."""
    options = parse_arguments()
    from component.pipeline.merge import merge

    result = merge(options.model, output=options.output, dtype=options.dtype, base_weights=options.base)
    for notice in result.notices:
        print(f"notice: {notice}")
    print(f"{result.folder}: {result.dtype}, {result.num_bytes / 2**30:.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
