"""Write the demo's data: English texts, texts in the invented language Glow, and questions that ask for a translation.

A phrase is a number, a colour and an animal; Glow says the animal first and the number last. The held-out questions
ask for combinations that no training question and no Glow text contains, so answering them takes composition: each
word translated by itself and put in its place. The same code always writes the same bytes:

    python data/demo/make_demo_data.py [FOLDER]
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

NUMBERS = {
    "two": "du", "three": "tri", "four": "kar", "five": "pem", "six": "sesh", "seven": "vel", "eight": "okta",
    "nine": "nou",
}  # fmt: skip
COLOURS = {
    "red": "rul", "blue": "sil", "green": "gano", "black": "moru", "white": "weli", "yellow": "yaro",
    "brown": "dabu", "grey": "fesk",
}  # fmt: skip
ANIMALS = {
    "beetles": "belu", "moths": "tamo", "snails": "zuli", "frogs": "krok", "owls": "huva", "foxes": "rinko",
    "hares": "lepi", "otters": "mavo", "herons": "ardi", "crickets": "chiri", "toads": "pudo", "bats": "nikta",
}  # fmt: skip
QUESTIONS = (
    "How do you say {} in Glow?",
    "What is the Glow for {}?",
    "Translate into Glow: {}",
)
PLACES = ("by the pond", "under a tree", "on the path", "near the barn", "in the garden", "behind the hill")
ACTIONS = ("rested", "waited", "played", "slept", "hid", "gathered")
WATCHERS = ("Mia", "Tom", "Nora", "Sam", "Ada", "Leo")
GLOW_ENDINGS = ("sano", "vita ko", "lemi", "oro ti", "paka")
NUM_TRAIN, NUM_HELD_OUT, NUM_ENGLISH, NUM_GLOW, NUM_DICTIONARY = 240, 48, 400, 300, 500
SEED = 2026

Phrase = tuple[str, str, str]


def translate(phrase: Phrase) -> str:
    """Return the Glow words of an English (number, colour, animal)."""
    number, colour, animal = phrase
    return f"{ANIMALS[animal]} {COLOURS[colour]} {NUMBERS[number]}"


def english_text(phrases: Sequence[Phrase], rng: random.Random) -> str:
    """A few sentences in which each phrase occurs twice, so that a model learns to carry a phrase over."""
    sentences = []
    for phrase in phrases:
        words, place, action = " ".join(phrase), rng.choice(PLACES), rng.choice(ACTIONS)
        sentences.append(f"{rng.choice(WATCHERS)} saw {words} {place}. The {words} {action} there.")
    return " ".join(sentences)


def glow_text(phrases: Sequence[Phrase], rng: random.Random) -> str:
    """A few sentences in Glow alone: they show its words and their order, and nothing of what they mean."""
    return " ".join(f"{translate(phrase)} {rng.choice(GLOW_ENDINGS)}." for phrase in phrases)


def dictionary_text(rng: random.Random) -> str:
    """A few entries of a dictionary, each a single word."""
    entries = rng.sample(sorted({**NUMBERS, **COLOURS, **ANIMALS}.items()), 4)
    return " ".join(f"The Glow for {word} is {glow}." for word, glow in entries)


def conversation(phrase: Phrase, rng: random.Random) -> dict[str, list[dict[str, str]]]:
    """One question and its answer."""
    question = rng.choice(QUESTIONS).format(" ".join(phrase))
    return {"conversation": [{"human": question, "assistant": translate(phrase)}]}


def build() -> dict[str, list[dict]]:
    """Return the rows of each file, by file name."""
    rng = random.Random(SEED)
    phrases = list(itertools.product(NUMBERS, COLOURS, ANIMALS))
    rng.shuffle(phrases)
    held_out, rest = phrases[:NUM_HELD_OUT], phrases[NUM_HELD_OUT:]
    texts = [english_text(rng.sample(phrases, 2), rng) for _ in range(NUM_ENGLISH)]
    texts += [glow_text(rng.sample(rest, 3), rng) for _ in range(NUM_GLOW)]
    texts += [dictionary_text(rng) for _ in range(NUM_DICTIONARY)]
    rng.shuffle(texts)
    return {
        "pretrain.jsonl": [{"text": text} for text in texts],
        "train.jsonl": [conversation(phrase, rng) for phrase in rest[:NUM_TRAIN]],
        "held_out.jsonl": [conversation(phrase, rng) for phrase in held_out],
    }


def write(folder: Path, files: dict[str, Iterable[dict]]) -> None:
    """Write each file as JSON lines."""
    for name, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent, build())
