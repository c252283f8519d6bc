"""Rows of one turn with known numbers of tokens: words that are one token each for the model's tokenizer."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from component.config.errors import UserError
from component.pipeline.benchmark.case import Rows
from component.pipeline.benchmark.sources import read_tokenizer_file

#: Of the log-normal lengths: standard deviation of their logarithm.
SPREAD = 0.8
#: Tokens that a chat template puts around a question and its answer, about.
FRAME_TOKENS = 10
#: Words to choose from, and the fewest that rows are made of.
MOST_WORDS, FEWEST_WORDS = 400, 20
#: Share of a row that is the question, whose tokens the loss leaves out.
PROMPT_SHARE = 0.25


def write_rows(path: Path, rows: Rows, words: list[str], *, seed: int = 0) -> None:
    """Write conversations of one turn; the same ones each time.

    Args:
        words: each one token, with the space before it.
    """
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows.num_rows):
            num_words = max(_num_tokens(rows, generator) - FRAME_TOKENS, 4)
            text = generator.choices(words, k=num_words)
            asked = max(int(num_words * PROMPT_SHARE), 2)
            turn = {"human": " ".join(text[:asked]), "assistant": " ".join(text[asked:])}
            file.write(json.dumps({"conversation": [turn]}, ensure_ascii=False) + "\n")


def _num_tokens(rows: Rows, generator: random.Random) -> int:
    if rows.kind == "full":
        return rows.max_tokens + 2 * FRAME_TOKENS
    middle = math.log(rows.mean_tokens) - SPREAD**2 / 2
    return min(int(generator.lognormvariate(middle, SPREAD)), rows.max_tokens)


def one_token_words(model: Path) -> list[str]:
    """Lower-case words that the tokenizer of a folder makes one token of, with the space before them.

    Raises:
        UserError: there are too few, or its file is damaged.
    """
    tokenizer = read_tokenizer_file("--model", model)
    found = []
    for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        word = token.removeprefix("\u0120").removeprefix("\u2581")
        if word == token or not (word.isascii() and word.isalpha() and word.islower()):
            continue
        alone = len(tokenizer.encode(word, add_special_tokens=False).ids)
        if len(tokenizer.encode(f"{word} {word}", add_special_tokens=False).ids) == alone + 1:
            found.append(word)
        if len(found) == MOST_WORDS:
            break
    return _check(found, model)


def _check(words: list[str], model: Path) -> list[str]:
    if len(words) < FEWEST_WORDS:
        raise UserError(
            f"--tokenizer: the tokenizer of {model} makes one token each of {len(words)} words, and rows of known "
            f"length need {FEWEST_WORDS}; use another"
        )
    return words
