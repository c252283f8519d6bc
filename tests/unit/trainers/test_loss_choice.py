"""What run.json says of the loss where Unsloth computes it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from component.models import unsloth_import
from component.trainers.loss_choice import choose_loss

ALL = "Unsloth's own loss, which makes scores of all tokens: "


@pytest.mark.parametrize(
    ("is_known", "environment", "reason"),
    [
        (True, {}, "Unsloth's own loss, of learned tokens alone"),
        (True, {"UNSLOTH_CHUNKED_CE": "1"}, "Unsloth's own loss, of learned tokens alone"),
        (
            True,
            {"UNSLOTH_CHUNKED_CE": "0", "UNSLOTH_CE_LOSS_TARGET_GB": "2", "UNSLOTH_RETURN_LOGITS": "0"},
            ALL + "the environment has UNSLOTH_CE_LOSS_TARGET_GB=2, UNSLOTH_CHUNKED_CE=0",
        ),
        (False, {}, ALL + "this version has no loss of learned tokens alone"),
    ],
)
def test_of_which_tokens_unsloth_makes_scores(
    is_known: bool, environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsloth_import, "knows_loss_limit", lambda: is_known)
    for name in unsloth_import.USUAL_LOSS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = SimpleNamespace(loader="unsloth", hardware=SimpleNamespace(kind="cuda"))
    choice, ours = choose_loss(None, SimpleNamespace(loss_chunk_tokens=None), context)
    assert (choice.reason, ours) == (reason, None)


@pytest.mark.parametrize(
    ("kind", "is_known", "asked", "got"),
    [("cuda", True, 64, 64), ("cuda", True, None, None), ("cuda", False, 64, None), ("cpu", True, 64, None)],
)
def test_a_limit_that_unsloth_does_not_know_is_told(
    kind: str, is_known: bool, asked: int | None, got: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsloth_import, "knows_loss_limit", lambda: is_known)
    context = SimpleNamespace(loader="unsloth", hardware=SimpleNamespace(kind=kind))
    choice, _ = choose_loss(None, SimpleNamespace(loss_chunk_tokens=asked), context)
    assert choice.got == got
    told = [f"loss_chunk_tokens: {asked} is not used: {choice.reason}"]
    assert choice.notices() == (told if asked != got else [])
