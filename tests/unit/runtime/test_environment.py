"""Facts about the environment, and what is kept out of them."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from component.runtime.environment import environment_facts, git_facts, package_versions

NOTHING = {"commit": None, "branch": None, "dirty": None, "diff_sha256": None}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "a.txt").write_text("one\n")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD").strip()
    assert git_facts(checkout) == {"commit": commit, "branch": "trunk", "dirty": False, "diff_sha256": None}


def test_a_changed_checkout_has_the_hash_of_its_change(checkout: Path) -> None:
    (checkout / "a.txt").write_text("two\n")
    (checkout / "new.txt").write_text("x")
    facts = git_facts(checkout)
    diff = git(checkout, "diff", "HEAD", "--binary").encode()
    assert facts["dirty"] is True
    assert facts["diff_sha256"] == hashlib.sha256(diff + b"\0new.txt\0").hexdigest()


def test_files_that_git_does_not_know_leave_a_checkout_clean(checkout: Path) -> None:
    (checkout / "result.json").write_text("{}")
    facts = git_facts(checkout)
    assert facts["dirty"] is False and "dirty" not in git(checkout, "describe", "--always", "--dirty")
    assert facts["diff_sha256"] == hashlib.sha256(b"\0result.json\0").hexdigest()
    git(checkout, "add", "result.json")
    assert git_facts(checkout)["dirty"] is True and "dirty" in git(checkout, "describe", "--always", "--dirty")


def test_a_detached_head_has_no_branch(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "--detach")
    assert git_facts(checkout)["branch"] is None


def test_a_folder_inside_another_checkout_has_no_commit(checkout: Path) -> None:
    (checkout / "copy").mkdir()
    assert git_facts(checkout / "copy") == NOTHING


def test_no_checkout(tmp_path: Path) -> None:
    assert git_facts(tmp_path) == NOTHING


def test_packages_come_from_the_requirements(tmp_path: Path) -> None:
    text = "# comment\n--extra-index-url x\nloguru==0.7.3\nno-such-package-here>=1 ; python_version>'3'\n\n"
    (tmp_path / "requirements.txt").write_text(text)
    versions = package_versions(tmp_path)
    assert versions["loguru"] == metadata.version("loguru")
    assert versions["no-such-package-here"] is None
    assert list(versions) == sorted(versions)


def test_facts_are_json_and_hold_no_names_or_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    facts = environment_facts(tmp_path)
    assert list(facts) == ["python", "platform", "cpu", "num_cores", "memory_bytes", "gpus", "packages", "git"]
    text = json.dumps(facts)
    assert "hf_very_secret" not in text
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in text
