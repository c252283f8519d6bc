"""Checkpoints of a run folder: which there are, and which are whole enough to go on from."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

OPTIMIZER_FILES = ("optimizer.pt", "scheduler.pt")
INDEX_NAME = "model.safetensors.index.json"
# The file with the weights -> the file that says what they are.
WEIGHT_NAMES = {
    "adapter_model.safetensors": "adapter_config.json",
    "model.safetensors": "config.json",
    INDEX_NAME: "config.json",
}
# What a run reads again of its small files; null is no number.
NUMBER = (int, float)
STATE_TYPES: dict[str, type | tuple[type, ...]] = {
    "global_step": int,
    "epoch": NUMBER,
    "max_steps": int,
    "num_train_epochs": int,
    "train_batch_size": int,
    "log_history": list,
    "stateful_callbacks": dict,
}
# The trainers write these; tests hold them to it.
COUNT_FILES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "token_counts.json": {"supervised": int, "real": int, "padded": int},
    "loss_window.json": {"loss_sum": NUMBER, "last_logged_step": int},
}
#: Of the trainers of preference tasks: metric -> its values since the last logged line.
WINDOW_FILE = "metrics_window.json"
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders named checkpoint-<step>, whole or not, by step."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if checkpoint_step(path) is not None and path.is_dir()]
    return sorted(found, key=lambda path: (checkpoint_step(path), path.name))


def checkpoint_step(path: Path) -> int | None:
    """The step in the folder's name, None when it is not the name of a checkpoint."""
    match = re.fullmatch(r"checkpoint-([0-9]+)", path.name)
    return int(match[1]) if match else None


def newest_good_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step that a run can go on from.

    None means that there is none, or that all are unusable: `describe_unusable` tells these apart, and a fresh start
    over unusable checkpoints would lose a run in silence.
    """
    return next((path for path in reversed(list_checkpoints(folder)) if check_checkpoint(path) is None), None)


def describe_unusable(folder: Path) -> list[str]:
    """One line for each checkpoint that cannot be resumed from: its path and the reason."""
    reasons = ((path, check_checkpoint(path)) for path in list_checkpoints(folder))
    return [f"{path}: {reason}" for path, reason in reasons if reason is not None]


def check_checkpoint(path: Path) -> str | None:
    """Why a run cannot go on from this checkpoint, None when it can.

    Sizes and structure are checked, not every byte: that finds what a killed process, a full disk or a partial copy
    leaves.
    """
    return (
        _check_state(path)
        or _check_weights(path)
        or _check_training_state(path)
        or _check_counts(path)
        or _check_rollouts(path)
    )


def _check_rollouts(path: Path) -> str | None:
    """Why the sampled completions in a checkpoint of grpo cannot be read; None where they can, or there are none."""
    return next((why for file in sorted(path.glob("rollouts_*.safetensors")) if (why := check_safetensors(file))), None)


def check_safetensors(path: Path) -> str | None:
    """Why a safetensors file is not whole, None when it is (https://huggingface.co/docs/safetensors, format)."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            header_length = int.from_bytes(file.read(8), "little")
            if size < 8 or header_length > min(size - 8, MAX_HEADER_BYTES):
                return f"{path.name} is cut off in its header"
            header = json.loads(file.read(header_length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        return f"{path.name} has no safetensors header"
    expected = 8 + header_length + max(ends, default=0)
    if size != expected:
        return f"{path.name} has {size} bytes instead of {expected}"
    return None


def _check_state(path: Path) -> str | None:
    state = _read_json(path / "trainer_state.json")
    if isinstance(state, str):
        return state
    if state.get("global_step") != checkpoint_step(path):
        return f"trainer_state.json is of step {state.get('global_step')}"
    return _check_types("trainer_state.json", state, STATE_TYPES)


def _check_counts(path: Path) -> str | None:
    for name, types in COUNT_FILES.items():
        counts = _read_json(path / name)
        if isinstance(counts, str):
            return counts
        if reason := _check_types(name, counts, types):
            return reason
        if unknown := sorted(counts.keys() - types.keys()):
            return f"{name} has unknown keys: {', '.join(unknown)}"
    if not (path / WINDOW_FILE).exists():
        return None
    window = _read_json(path / WINDOW_FILE)
    if isinstance(window, str):
        return window
    is_usable = all(
        isinstance(values, list) and all(isinstance(x, NUMBER) for x in values) for values in window.values()
    )
    return None if is_usable else f"{WINDOW_FILE} has values that are no numbers"


def _check_types(name: str, content: dict, types: dict[str, type | tuple[type, ...]]) -> str | None:
    for key, kind in types.items():
        if not isinstance(content.get(key), kind) or isinstance(content[key], bool):
            return f"{name} has no usable {key}"
    return None


def _check_weights(path: Path) -> str | None:
    present = [name for name in WEIGHT_NAMES if (path / name).exists()]
    if not present:
        return "no weights"
    for name in present:
        config = _read_json(path / WEIGHT_NAMES[name])
        if isinstance(config, str):
            return config
        files = [name]
        if name == INDEX_NAME:
            index = _read_json(path / name)
            if isinstance(index, str):
                return index
            weight_map = index.get("weight_map")
            files = sorted({str(file) for file in weight_map.values()}) if isinstance(weight_map, dict) else []
            if not files:
                return f"{name} is cut off or damaged"
        for file in files:
            if reason := check_safetensors(path / file):
                return reason
    return None


def _check_training_state(path: Path) -> str | None:
    if not (path / OPTIMIZER_FILES[0]).exists() and not list(path.glob("rng_state*.pth")):
        return "no optimizer state: it was saved with save_only_model, or its writing was cut short"
    random_states = sorted(file.name for file in path.glob("rng_state*.pth"))
    scaler = ["scaler.pt"] if (path / "scaler.pt").exists() else []
    for name in (*OPTIMIZER_FILES, *(random_states or ["rng_state.pth"]), *scaler):
        if not (path / name).exists():
            return f"{name} is missing"
        if not _is_whole_archive(path / name):
            return f"{name} is cut off or empty"
    return None


def _is_whole_archive(path: Path) -> bool:
    """torch.save writes zip archives of one folder with data.pkl, whose table of contents comes last."""
    try:
        with zipfile.ZipFile(path) as archive:
            roots = {name.partition("/")[0] for name in archive.namelist()}
            return len(roots) == 1 and bool(archive.read(f"{roots.pop()}/data.pkl"))
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError):
        return False


def _read_json(path: Path) -> dict | str:
    """The object in a file, or why there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, ValueError, RecursionError):
        return f"{path.name} is cut off or damaged"
    return content if isinstance(content, dict) else f"{path.name} is cut off or damaged"
