"""Where a model's files are: local folders, the hub and its cache, adapters and the base models that they name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.errors import MachineError, UserError
from component.config.nodes import excerpt
from component.config.schema import ModelSection

CONFIG_FILE = "config.json"
#: Sizes of config.json that are positive whole numbers wherever they are given (some families give one for each layer).
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
ADAPTER_FILE = "adapter_config.json"
#: `peft_type` of the adapters that are made and read here.
ADAPTER_KIND = "LORA"
MOVED_BASE = (
    f"if the base has moved, write where it is now into base_model_name_or_path of the adapter's {ADAPTER_FILE}"
)


@dataclass(frozen=True)
class ModelSource:
    """What `model_name_or_path` names.

    Attributes:
        base: local folder or hub id of the weights.
        base_revision: of a hub id, None for its default branch.
        adapter: local folder or hub id of the LoRA adapter on that base, None without one.
        adapter_revision: of a hub id, None for its default branch.
    """

    base: str
    base_revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether nothing of it comes from the hub."""
        return Path(self.base).is_dir() and (self.adapter is None or Path(self.adapter).is_dir())


def configure_hub(model: ModelSection) -> None:
    """Apply `hub_endpoint`, `offline` and `hub_token` to this process, before huggingface_hub is imported.

    Raises:
        MachineError: huggingface_hub was imported already, with another address.
    """
    constants = sys.modules.get("huggingface_hub.constants")
    if model.hub_endpoint:
        endpoint = model.hub_endpoint.rstrip("/")
        if constants is not None and endpoint != constants.ENDPOINT:
            raise MachineError(
                f"hub_endpoint: huggingface_hub was imported before this run and uses {constants.ENDPOINT}; "
                "set HF_ENDPOINT before the process starts"
            )
        os.environ["HF_ENDPOINT"] = endpoint
    if model.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        if constants is not None:
            constants.HF_HUB_OFFLINE = True
    if model.hub_token:
        # The variable, not an argument: Unsloth would write a token that it is given to disk.
        os.environ["HF_TOKEN"] = model.hub_token


def find_model(model: ModelSection) -> ModelSource:
    """Find out whether `model_name_or_path` is a model or an adapter, and where the base of an adapter is.

    Raises:
        UserError: it is neither, or cannot be reached.
    """
    return find_source(model.model_name_or_path, model.model_revision)


def find_source(name: str, revision: str | None = None) -> ModelSource:
    """As `find_model`, for a bare name."""
    path = local_path(name)
    name = str(path) if name.startswith("~") else name
    revision = None if path.is_dir() else revision
    adapter_file = _file(name, ADAPTER_FILE, revision=revision)
    if adapter_file is None:
        if _file(name, CONFIG_FILE, revision=revision) is None:
            raise UserError(f"model_name_or_path: {_shown(name)} has no {CONFIG_FILE} or {ADAPTER_FILE}; name a model")
        return ModelSource(base=name, base_revision=revision)
    adapter = read_model_json(adapter_file)
    base = adapter_base(adapter_file, adapter)
    kind = adapter.get("peft_type", ADAPTER_KIND)
    if kind != ADAPTER_KIND:
        raise UserError(
            f"model_name_or_path: {name} is an adapter of the kind {kind}, and only {ADAPTER_KIND} adapters are read "
            f"here; name its base {base}, or merge the adapter into it with PEFT"
        )
    base_revision = None if Path(base).is_dir() else adapter.get("revision")
    try:
        config_file = _file(base, CONFIG_FILE, revision=base_revision, adapter=name)
    except UserError as error:
        raise UserError(f"{error}; {MOVED_BASE}") from error
    if config_file is None:
        raise UserError(
            f"model_name_or_path: the adapter {name} needs {_shown(base)}, which has no {CONFIG_FILE}; {MOVED_BASE}"
        )
    return ModelSource(base=base, base_revision=base_revision, adapter=name, adapter_revision=revision)


def local_path(name: str) -> Path:
    """The path of the folder that a model's name would be, of which there may be none.

    Raises:
        UserError: it cannot be looked for, as with a name that is too long or a `~` of nobody.
    """
    try:
        path = Path(name).expanduser() if name.startswith("~") else Path(name)
        path.is_dir()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise UserError(
            f"model_name_or_path: {excerpt(name)} cannot be looked for ({reason}); name a local folder or a hub id"
        ) from error
    return path


def adapter_base(file: Path, adapter: Mapping[str, Any]) -> str:
    """The base that an adapter names.

    Args:
        file: adapter_config.json, whose content `adapter` is.

    Raises:
        UserError: it names none, or itself.
    """
    base = adapter.get("base_model_name_or_path")
    if not base:
        raise UserError(f"model_name_or_path: {file} names no base_model_name_or_path; add it")
    if not isinstance(base, str):
        raise UserError(
            f"model_name_or_path: {file}: base_model_name_or_path is {excerpt(json.dumps(base))}; "
            "it must be the name of a model"
        )
    if local_path(base).resolve() == file.parent.resolve() and not (file.parent / CONFIG_FILE).is_file():
        raise UserError(
            f"model_name_or_path: {file}: base_model_name_or_path is the adapter itself; name the model that it is for"
        )
    return base


def read_model_config(model: ModelSection) -> dict[str, Any]:
    """Read config.json of the model, or of the base of an adapter, without transformers.

    Raises:
        UserError: the model is missing, gated or unreachable, or its config.json is no JSON or no model's.
    """
    return read_source_config(find_model(model))


def read_source_config(source: ModelSource) -> dict[str, Any]:
    """As `read_model_config`, for a source that was found already."""
    file = _file(source.base, CONFIG_FILE, revision=source.base_revision)
    assert file is not None, "find_model has read it"
    content = read_model_json(file)
    _check_config(file, content)
    return content


def read_adapter_config(model: ModelSection) -> dict[str, Any]:
    """Read adapter_config.json of the adapter that training goes on from; empty without one.

    Raises:
        UserError: as of `find_model`.
    """
    source = find_model(model)
    file = source.adapter and _file(source.adapter, ADAPTER_FILE, revision=source.adapter_revision)
    return read_model_json(file) if file else {}


def source_folder(source: ModelSource) -> Path:
    """The local folder of a base: its own, or that of its config.json in the cache of the hub.

    What else is in it, of a hub model, is what was fetched so far.
    """
    file = _file(source.base, CONFIG_FILE, revision=source.base_revision)
    assert file is not None, "find_model has read it"
    return file.parent


def _check_config(file: Path, content: Mapping[str, Any]) -> None:
    subject = f"model_name_or_path: {file.absolute()}"
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise UserError(f'{subject}: model_type is {json.dumps(model_type)}; it must be a name such as "llama"')
    text_config = content.get("text_config") or {}
    if not isinstance(text_config, dict):
        raise UserError(f"{subject}: text_config is no JSON object; mend the file")
    for part in (content, text_config):
        for name in SIZES:
            value = part.get(name)
            if value is None or isinstance(value, list):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{subject}: {name} is {json.dumps(value)}; it must be a positive whole number")


def has_file(name: str, filename: str, *, revision: str | None = None) -> bool:
    """Whether a local folder or hub model holds a file.

    Raises:
        UserError: the model cannot be reached.
    """
    return _file(name, filename, revision=revision) is not None


def _file(name: str, filename: str, *, revision: str | None, adapter: str | None = None) -> Path | None:
    """The local path of a file of a model, downloaded if need be; None where the model exists without that file."""
    subject = f"model_name_or_path: {name}" if adapter is None else f"model_name_or_path: {adapter} needs {name}, which"
    folder = Path(name)
    if folder.is_dir():
        return folder / filename if (folder / filename).is_file() else None
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name:
        raise UserError(f"{subject} is no folder (looked at {folder.absolute()}); name a local folder or a hub id")
    return _hub_file(subject, name, filename, revision)


def _hub_file(subject: str, name: str, filename: str, revision: str | None) -> Path | None:
    import httpx
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub import errors as hub

    here = Path(name).absolute()
    try:
        if not constants.is_offline_mode():
            # Asked first because it does not retry: an unreachable hub answers at once.
            get_hf_file_metadata(hf_hub_url(name, filename, revision=revision))
        return Path(hf_hub_download(name, filename, revision=revision))
    except hub.GatedRepoError as error:
        raise UserError(
            f"{subject} is gated; ask for access on its page, then log in with `hf auth login` or set hub_token"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise UserError(
            f"{subject} is neither a folder (looked at {here}) nor a model on {constants.ENDPOINT}; "
            "check the name, or log in with `hf auth login` or set hub_token if it is private"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise UserError(f"model_revision: {name} has no revision {revision!r}; name a branch, tag or commit") from error
    except hub.HFValidationError as error:
        raise UserError(
            f"{subject} is no folder (looked at {here}) and cannot be a hub id; name a local folder or a hub id"
        ) from error
    except hub.RemoteEntryNotFoundError:
        return None
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, hub.HfHubHTTPError, httpx.TransportError) as error:
        return _cached_file(subject, name, filename, revision, error)


def _cached_file(subject: str, name: str, filename: str, revision: str | None, error: Exception) -> Path | None:
    """The file from the local hub cache, after the hub could not be asked because of `error`."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = {item: try_to_load_from_cache(name, item, revision=revision) for item in (filename, CONFIG_FILE)}
    if isinstance(cached[filename], str):
        return Path(cached[filename])
    if isinstance(cached[CONFIG_FILE], str):
        return None
    here = Path(name).absolute()
    if constants.is_offline_mode():
        raise UserError(
            f"{subject} is neither a folder (looked at {here}) nor in the local hub cache, and the hub is switched off "
            "(offline or HF_HUB_OFFLINE); name a local folder, or download it first"
        ) from error
    raise UserError(
        f"{subject} is no folder (looked at {here}), and {constants.ENDPOINT} cannot be reached "
        f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
        "set hub_endpoint to a mirror, or name a local folder"
    ) from error


def _shown(name: str) -> str:
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def read_model_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a model.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model_name_or_path: {file.absolute()} cannot be read: {error}; mend the file") from error
    if not isinstance(content, dict):
        raise UserError(f"model_name_or_path: {file.absolute()} holds no JSON object; mend the file")
    return content
