"""Rules over tokens that a config adds to the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

from component.config.errors import Problem
from component.config.merged import Merged, Rule


def check_new_tokens(merged: Merged) -> Iterator[Problem]:
    """Each new token has a text of its own."""
    texts, place = merged["new_tokens"], merged.places.get("new_tokens")
    if any(text and not text.strip() for text in texts):
        yield Problem(place, "new_tokens", "one of them is white space alone", "name tokens with a text")
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        yield Problem(place, "new_tokens", f'"{twice[0]}" is named {texts.count(twice[0])} times', "name each once")


def check_trained_rows(merged: Merged) -> Iterator[Problem]:
    """New tokens are trained: where layers alone are, their rows would stay as they start."""
    if merged["new_tokens"] and merged["train_mode"] == "full" and merged["freeze_trainable_layers"] is not None:
        what = "freeze_trainable_layers trains layers alone, and not the embeddings of new_tokens"
        fix = "use train_mode: lora, which trains the rows of new tokens, or drop one of them"
        yield merged.clash("freeze_trainable_layers", "new_tokens", what, fix)


TOKEN_RULES: tuple[Rule, ...] = (check_new_tokens, check_trained_rows)
