"""What `--model` and `--tokenizer` of a suite name, checked before anything is made of it or started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.models.failures import TokenizerFileErrors
from component.models.model_files import find_source, has_file, read_source_config

TOKENIZER_FILE = "tokenizer.json"
#: Patterns of files with weights.
WEIGHTS = ("*.safetensors", "*.bin")


def check_tokenizer(folder: Path) -> None:
    """Check a folder that tokenizers are copied from.

    Raises:
        UserError: there is none, or no tokenizer in it that can be read.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"--tokenizer: {folder} {what}; name a folder with {TOKENIZER_FILE}")
    if not (folder / TOKENIZER_FILE).is_file():
        raise UserError(f"--tokenizer: {folder} has no {TOKENIZER_FILE}; name a folder that has one")
    read_tokenizer_file("--tokenizer", folder)


def check_tokenizer_name(name: str) -> None:
    """Check a tokenizer that may also be an id of the hub.

    Raises:
        UserError: it cannot be found, or not be read.
    """
    if Path(name).exists():
        check_tokenizer(Path(name))
        return
    try:
        found = has_file(name, TOKENIZER_FILE)
    except UserError as error:
        raise UserError(_of_option("--tokenizer", error)) from error
    if not found:
        raise UserError(f"--tokenizer: {name} has no {TOKENIZER_FILE}; name one that has")


def check_model(folder: Path) -> None:
    """Check a folder that runs load as their model.

    Raises:
        UserError: it is no whole checkpoint with a tokenizer.
    """
    read_model_sizes(folder)
    if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        raise UserError(f"--model: {folder} has no weights ({', '.join(WEIGHTS)}); name a folder with a checkpoint")
    if not (folder / TOKENIZER_FILE).is_file():
        raise UserError(f"--model: {folder} has no {TOKENIZER_FILE}, by which rows are made; put its tokenizer there")
    read_tokenizer_file("--model", folder)


def read_model_sizes(folder: Path) -> dict[str, Any]:
    """What config.json of a folder, or of an id of the hub, says.

    Raises:
        UserError: there is none, it is damaged, or the folder holds an adapter.
    """
    try:
        source = find_source(str(folder))
        if source.adapter is not None:
            raise UserError(
                f"--model: {folder} is an adapter of {source.base}; name a whole model (script/merge_lora.py)"
            )
        return read_source_config(source)
    except UserError as error:
        raise UserError(_of_option("--model", error)) from error


def read_tokenizer_file(option: str, folder: Path) -> Any:
    """The tokenizer of a folder, of the package `tokenizers`.

    Args:
        option: that named the folder, for the message.

    Raises:
        UserError: its file is damaged.
    """
    from tokenizers import Tokenizer

    file = folder / TOKENIZER_FILE
    with TokenizerFileErrors(f"{option}: {file} cannot be read", "mend the file"):
        return Tokenizer.from_file(str(file))


def _of_option(option: str, error: UserError) -> str:
    """The message by the option's name, which the rest of the project knows as a key of a config."""
    return str(error).replace("model_name_or_path", option)
