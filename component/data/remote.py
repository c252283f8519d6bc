"""Data that is fetched first: files behind a URL, datasets of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import tempfile
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from component.config.errors import UserError
from component.runtime.cache_folder import cache_folder

_SECONDS = 30
_CHUNK_BYTES = 2**20
_HUB_ENTRY = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(\?(?P<options>.*))?")
_HUB_OPTIONS = ("config", "split", "revision")


def is_url(entry: str) -> bool:
    """Whether an entry of the config is a web address."""
    return entry.startswith(("http://", "https://"))


def is_hub_dataset(entry: str) -> bool:
    """Whether an entry of the config names a dataset of the hub."""
    return entry.startswith("hub:")


def file_name_of(url: str) -> str:
    """The name of the file that a web address names."""
    return PurePosixPath(unquote(urlsplit(url).path)).name


def download(url: str, *, key: str) -> tuple[Path, tuple[str, ...]]:
    """Fetch a file into the cache, where it lies in a folder named by the hash of its content.

    What was fetched before is asked for again, so that a change is seen; where the server cannot be reached, the file
    of last time is used with a notice. With HF_HUB_OFFLINE=1 nothing is asked for.

    Args:
        url: its address.
        key: the config key, for messages.

    Returns:
        The file and notices.

    Raises:
        UserError: it cannot be fetched and was not before, or the address holds a password.
    """
    if urlsplit(url).username is not None:
        raise UserError(f"{key}: a web address must not hold a user or password; download the file yourself")
    folder = cache_folder("downloads")
    index = folder / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
    known = _read_index(index, folder)
    try:
        if os.environ.get("HF_HUB_OFFLINE") == "1":
            raise OSError("HF_HUB_OFFLINE is set")
        headers = {"User-Agent": "lampyris"} | ({"If-None-Match": known["etag"]} if known.get("etag") else {})
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as answer:
            size = answer.headers.get("Content-Length")
            sha256 = _store(answer, folder, file_name_of(url), None if size is None else int(size))
            _write(index, json.dumps({"url": url, "sha256": sha256, "etag": answer.headers.get("ETag")}))
        return folder / sha256 / file_name_of(url), ()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 304:
            return folder / known["sha256"] / file_name_of(url), ()
        reason = " ".join(str(getattr(error, "reason", error)).split())
        reason = f"HTTP {error.code} {reason}" if isinstance(error, urllib.error.HTTPError) else reason
        if known:
            path = folder / known["sha256"] / file_name_of(url)
            return path, (f"{key}: {url} cannot be downloaded ({reason}); the copy of an earlier download is used",)
        fix = "correct the address, or download the file yourself and name its path"
        raise UserError(f"{key}: {url} cannot be downloaded ({reason}); {fix}") from None


def _read_index(index: Path, folder: Path) -> dict[str, str]:
    """What was fetched last time; empty if there is nothing, or its file is gone or damaged."""
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        with open(folder / known["sha256"] / file_name_of(known["url"]), "rb") as file:
            return known if hashlib.file_digest(file, "sha256").hexdigest() == known["sha256"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _store(answer: BinaryIO, folder: Path, name: str, size: int | None) -> str:
    """Write what a server sends to a folder named by its hash, and return the hash.

    Raises:
        OSError: it ended early, or the cache cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest, received = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory(dir=folder) as place:
        part = Path(place) / name
        with open(part, "wb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                digest.update(chunk)
                received += len(chunk)
                file.write(chunk)
        if size is not None and received != size:
            raise OSError(f"the server sent {received:,} of {size:,} bytes")
        target = folder / digest.hexdigest() / name
        target.parent.mkdir(exist_ok=True)
        os.replace(part, target)
    return digest.hexdigest()


def _write(path: Path, content: str) -> None:
    """Write a small file whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def fetch_hub_dataset(entry: str, *, key: str) -> list[Path]:
    """Fetch one split of a dataset of the hub through the datasets library, which keeps it as arrow files.

    Args:
        entry: `hub:owner/name`, optionally with `?config=...&split=...&revision=...`; the split is train by default.
        key: the config key, for messages.

    Returns:
        Its arrow files, in order.

    Raises:
        UserError: the entry is misspelt, there is no such dataset, or the hub cannot be reached.
    """
    name, options = _parse_hub_entry(entry, key)
    import httpx
    from datasets import load_dataset

    try:
        dataset = load_dataset(
            name, options.get("config"), split=options.get("split", "train"), revision=options.get("revision")
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        fix = "correct its name, config, split or revision, or the connection"
        raise UserError(f"{key}: {entry} cannot be loaded ({reason}); {fix}") from None
    return [Path(file["filename"]) for file in dataset.cache_files]


def _parse_hub_entry(entry: str, key: str) -> tuple[str, dict[str, str]]:
    match = _HUB_ENTRY.fullmatch(entry)
    form = "write hub:owner/name?config=...&split=...&revision=..., each of the three if needed"
    if match is None:
        raise UserError(f"{key}: {entry} is no dataset of the hub; {form}")
    try:
        options = dict(parse_qsl(match["options"] or "", keep_blank_values=True, strict_parsing=bool(match["options"])))
    except ValueError:
        raise UserError(f"{key}: {entry}: {match['options']} has no value; {form}") from None
    for option, value in options.items():
        if option not in _HUB_OPTIONS or not value:
            raise UserError(f"{key}: {entry}: there is no {option}={value}; {form}")
    if "[" in options.get("split", ""):
        raise UserError(f"{key}: {entry}: a split is taken whole; use max_samples for a part of it")
    return match["name"], options
