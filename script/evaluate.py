"""Ask a model the questions of a data file and count the answers that are exactly right.

python script/evaluate.py --model output/demo/sft --data data/demo/held_out.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.config.errors import UserError
from component.runtime.command import non_empty, positive_int, print_lines, run_command
from component.runtime.output_file import check_output_file


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=non_empty, help="run folder, adapter, model folder or hub id")
    parser.add_argument(
        "--data", required=True, type=non_empty, nargs="+", metavar="FILE", help="conversations in any chat format"
    )
    parser.add_argument("--template_name", default="auto", help="as in a config; a run folder has its own")
    parser.add_argument("--max_new_tokens", type=positive_int, default=64, metavar="N")
    parser.add_argument("--use_cpu", action="store_true", help="although there is a GPU")
    parser.add_argument(
        "--json", type=non_empty, metavar="FILE", help="write counts, all answers and all bad rows there"
    )
    return parser.parse_args()


def main() -> int:
    """Print how many answers are right, and the first that are wrong."""
    options = parse_arguments()
    if options.json:
        check_output_file("--json", Path(options.json))
    from component.pipeline.answer import load_answerer, score_exact_match

    answerer = load_answerer(options.model, template_name=options.template_name, use_cpu=options.use_cpu)
    score = score_exact_match(answerer, options.data, max_new_tokens=options.max_new_tokens)
    for example in [example for example in score.examples if not example["exact"]][:3]:
        print(f"{example['source']} expected {example['expected']!r} got {example['answer']!r}")
    print_lines(score.describe_failures())
    print(f"{score.num_exact} of {score.num_questions} answers exactly right")
    if options.json:
        content = {
            "exact": score.num_exact,
            "questions": score.num_questions,
            "examples": score.examples,
            "failures": [{"source": str(item.source), "reason": item.reason} for item in score.failures],
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        try:
            Path(options.json).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {options.json}: cannot be written ({error.strerror}); name another file") from None
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
