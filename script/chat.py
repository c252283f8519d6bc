"""Talk to a trained model, or ask it one question.

python script/chat.py --model output/demo/sft --question "Translate into Glow: three green foxes"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.runtime.command import non_empty, positive_int, run_command


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=non_empty, help="run folder, adapter, model folder or hub id")
    parser.add_argument("--question", nargs="+", metavar="TEXT", help="ask these, each on its own, and end")
    parser.add_argument("--system", help="system message")
    parser.add_argument("--template_name", default="auto", help="as in a config; a run folder has its own")
    parser.add_argument("--max_new_tokens", type=positive_int, default=512, metavar="N")
    parser.add_argument("--use_cpu", action="store_true", help="although there is a GPU")
    return parser.parse_args()


def main() -> int:
    """Answer the questions of the command line, or hold a conversation until the input ends."""
    options = parse_arguments()
    from component.data.rows import Message
    from component.pipeline.answer import load_answerer

    answerer = load_answerer(options.model, template_name=options.template_name, use_cpu=options.use_cpu)
    opening = [Message("system", options.system)] if options.system else []
    if options.question:
        questions = [[*opening, Message("user", question)] for question in options.question]
        for answer in answerer.answer(questions, max_new_tokens=options.max_new_tokens):
            print(answer)
        return 0
    messages = opening
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return 0
        if question:
            messages = [*messages, Message("user", question)]
            (answer,) = answerer.answer([messages], max_new_tokens=options.max_new_tokens)
            print(answer)
            messages = [*messages, Message("assistant", answer)]


if __name__ == "__main__":
    sys.exit(run_command(main))
