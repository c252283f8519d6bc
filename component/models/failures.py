"""What the libraries raise over files that are damaged or do not fit, as one line for whoever can mend them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from component.config.errors import RunError, UserError


def library_failures() -> tuple[type[Exception], ...]:
    """Exceptions of transformers, PEFT, torch and safetensors over a file's content.

    A lack of memory is a RuntimeError too and no fault of a file, nor is a device that does not answer any more:
    callers let torch.OutOfMemoryError and torch.AcceleratorError through before.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return (
        RuntimeError, ValueError, TypeError, AttributeError, LookupError, ImportError, OSError, EOFError,
        AssertionError, ArithmeticError, pickle.UnpicklingError, SafetensorError, StrictDataclassError,
    )  # fmt: skip


class TokenizerFileErrors:
    """Turns what a tokenizer's damaged file raises inside the block into one line, `subject: reason; fix`.

    Over one that they cannot read, tokenizers' Rust core raises a bare Exception: that type itself, not those below it.

    Args:
        subject: key or option, and what is wrong with it.
        fix: what to do about it.

    Raises:
        UserError: in place of that, or of any of `library_failures`, on leaving the block.
    """

    def __init__(self, subject: str, fix: str) -> None:
        self._subject, self._fix = subject, fix

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is not None and (kind is Exception or isinstance(error, library_failures())):
            raise UserError(f"{self._subject}: {first_line(error)}; {self._fix}") from error


@contextmanager
def told_as_user_error(subject: str, fix: str) -> Iterator[None]:
    """Turn the failures of a library inside the block into one line, `subject cannot be loaded: reason; fix`.

    Args:
        subject: key and value, such as `model_name_or_path: FOLDER`.
        fix: what to do about it.

    Raises:
        UserError: in place of any of `library_failures`.
    """
    import torch

    try:
        yield
    except (RunError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except library_failures() as error:
        raise UserError(f"{subject} cannot be loaded: {first_line(error)}; {fix}") from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, with what follows it where that line ends in a colon."""
    if isinstance(error, pickle.UnpicklingError):
        # torch's own text advises to load the file unsafely.
        return "its weights are no file of PyTorch's, or hold more than weights"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = 1
    while shown < len(lines) and lines[shown - 1].endswith(":"):
        shown += 1
    text = " ".join(lines[:shown]) or type(error).__name__
    # The text of a KeyError is the key alone.
    return f"{type(error).__name__} {text}" if isinstance(error, KeyError) else text.rstrip(".")
