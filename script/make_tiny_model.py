"""Make a small random model with its own tokenizer, or a random checkpoint of a published shape.

python script/make_tiny_model.py --texts data/demo/pretrain.jsonl --output output/demo/tiny
python script/make_tiny_model.py --architecture qwen3_moe --texts data/demo/pretrain.jsonl --output output/tiny-moe
python script/make_tiny_model.py --shape llama3-8b --tokenizer FOLDER --output output/llama3-8b-random
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.models.tiny import ARCHITECTURES, SHAPES, Shape, make_tiny_model
from component.runtime.command import run_command


def parse_arguments() -> argparse.Namespace:
    """Return the command line: one option for each size, without defaults, so that a preset shows through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="llama")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny", help="sizes to start from")
    parser.add_argument("--texts", type=Path, nargs="+", default=[], metavar="FILE", help="train a tokenizer on these")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="copy this tokenizer instead")
    parser.add_argument("--pad_is_eos", action="store_true", help="no padding token of its own: use the end token")
    parser.add_argument("--seed", type=int, default=0)
    for field in fields(Shape):
        if field.name != "tie_word_embeddings":
            parser.add_argument(f"--{field.name}", type=type(field.default), metavar="N")
    return parser.parse_args()


def main() -> int:
    """Make the model and say what was made."""
    arguments = parse_arguments()
    sizes = {name: value for name, value in vars(arguments).items() if value is not None and hasattr(Shape, name)}
    made = make_tiny_model(
        arguments.output,
        shape=replace(SHAPES[arguments.shape], **sizes),
        seed=arguments.seed,
        texts=arguments.texts,
        tokenizer=arguments.tokenizer,
        pad_is_eos=arguments.pad_is_eos,
        model_type=arguments.architecture,
    )
    print(f"{arguments.output}: {made['num_parameters']:,} parameters, {made['vocab_size']:,} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
