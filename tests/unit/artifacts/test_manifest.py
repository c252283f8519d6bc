"""run.json from its first write to its last."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from component.artifacts.manifest import SECTIONS, Manifest, utc_now
from component.config.errors import MachineError, UserError

KEYS = ["schema_version", "status", "created", "updated", *SECTIONS, "attempts"]


def on_disk(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_a_new_manifest_has_every_key_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "output" / "run"
    assert not Manifest.exists(folder)
    Manifest.create(folder, {"seeds": {"seed": 42}, "config": {"train_file": ["数据.jsonl"], "lora_rank": 8}})
    assert Manifest.exists(folder)
    content = on_disk(folder)
    assert list(content) == KEYS
    assert (content["schema_version"], content["status"], content["attempts"]) == (1, "created", [])
    assert list(content["config"]) == ["train_file", "lora_rank"]
    assert "数据.jsonl" in (folder / "run.json").read_text(encoding="utf-8")


def test_attempts_are_recorded(tmp_path: Path) -> None:
    manifest = Manifest.create(tmp_path, {})
    manifest.begin_attempt(from_step=0)
    assert on_disk(tmp_path)["status"] == "running"
    manifest.end_attempt("interrupted", to_step=10, exit_code=130, message="SIGTERM")
    manifest.begin_attempt(from_step=10, resumed_from=Path("run/checkpoint-10"), notices=["packing has changed"])
    manifest.update(metrics={"loss": 0.25, "eval_loss": math.nan}, timings={"train": 1.5})
    manifest.end_attempt("finished", to_step=20, exit_code=0)

    content = on_disk(tmp_path)
    assert list(content) == KEYS
    assert content["status"] == "finished"
    first, second = content["attempts"]
    assert first["started"] <= first["ended"] <= second["started"] <= second["ended"]
    times = ("started", "ended")
    assert {name: value for name, value in first.items() if name not in times} == {
        "from_step": 0, "to_step": 10, "status": "interrupted", "exit_code": 130, "message": "SIGTERM",
        "resumed_from": None,
        "notices": [],
    }  # fmt: skip
    assert {name: value for name, value in second.items() if name not in times} == {
        "from_step": 10, "to_step": 20, "status": "finished", "exit_code": 0, "message": "",
        "resumed_from": "run/checkpoint-10",
        "notices": ["packing has changed"],
    }  # fmt: skip
    assert content["metrics"] == {"loss": 0.25, "eval_loss": "NaN"}
    assert math.isnan(Manifest.load(tmp_path).content["metrics"]["eval_loss"])


def test_a_killed_attempt_is_closed_by_the_next(tmp_path: Path) -> None:
    Manifest.create(tmp_path, {}).begin_attempt(from_step=0)
    manifest = Manifest.load(tmp_path)
    assert manifest.status == "running"
    manifest.begin_attempt(from_step=5, resumed_from="checkpoint-5")
    first, second = manifest.content["attempts"]
    assert (first["status"], first["ended"]) == ("interrupted", None)
    assert first["message"] == "the process ended without a word, at an unknown time"
    assert second["status"] == "running"


def test_a_loaded_manifest_is_the_saved_one(tmp_path: Path) -> None:
    created = Manifest.create(tmp_path, {"config": {"answer": "NaN"}, "notices": ["one"]})
    assert Manifest.load(tmp_path).content == created.content
    assert created.content["config"] == {"answer": "NaN"}


def test_the_content_is_a_copy(tmp_path: Path) -> None:
    manifest = Manifest.create(tmp_path, {})
    manifest.content["status"] = "finished"
    assert manifest.status == "created"


def test_a_section_that_does_not_exist_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="confg"):
        Manifest.create(tmp_path, {}).update(confg={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not found; name the output_dir of a run"),
        ('{"schema_version": 1, "sta', "cannot be read"),
        ("[]", "not the manifest of a run; use another output_dir"),
        ('{"name": "x"}', "not the manifest of a run; use another output_dir"),
        ('{"schema_version": 2, "attempts": []}', "schema_version: 2 is newer than 1"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_an_unusable_manifest_is_named(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        Manifest.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'run.json'}: ")
    assert message in str(caught.value)


def test_a_full_disk_leaves_the_last_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.create(tmp_path, {"seeds": {"seed": 1}})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="No space"):
        patch.setattr("os.replace", fail)
        manifest.update(seeds={"seed": 2})
    assert Manifest.load(tmp_path).content["seeds"] == {"seed": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_full_disk_does_not_hide_why_a_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.create(tmp_path, {})
    manifest.begin_attempt(from_step=0)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    manifest.end_attempt("failed", to_step=3, exit_code=2, message="the disk is full")
    with pytest.raises(MachineError, match="run.json: cannot be written"):
        manifest.end_attempt("finished", to_step=3, exit_code=0)


DAMAGES = [
    ({"status": None}, "status is null"),
    ({"status": "zork"}, 'status is "zork"'),
    ({"config": "x"}, "config is no mapping"),
    ({"hashes": None}, "hashes is no mapping"),
    ({"metrics": None}, "metrics is no mapping"),
    ({"notices": {}}, "notices is no list"),
    ({"attempts": [1]}, "attempt 1 of attempts has no status"),
    ({"attempts": [{"status": []}]}, "attempt 1 of attempts has no status"),
    ({"status": "finished", "attempts": []}, "status is finished, and the last attempt has no to_step"),
    (
        {"status": "finished", "attempts": [{"status": "finished", "to_step": None}]},
        "status is finished, and the last attempt has no to_step",
    ),
]


@pytest.mark.parametrize(("change", "what"), DAMAGES)
def test_a_damaged_manifest_is_named(tmp_path: Path, change: dict, what: str) -> None:
    Manifest.create(tmp_path, {})
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**on_disk(tmp_path), **change}))
    with pytest.raises(UserError) as caught:
        Manifest.load(tmp_path)
    assert str(caught.value) == f"{path}: damaged: {what}; restore it or use a new output_dir"


def test_times_are_utc() -> None:
    time = datetime.fromisoformat(utc_now())
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
