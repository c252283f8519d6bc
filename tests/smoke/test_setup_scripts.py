"""The shell scripts: what they refuse before any download, and when they install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs bash")

TOOLS = ("bash", "cat", "dirname", "env", "rm", "uname")
INSTALLED = "installed.txt"

# An interpreter that runs the real one, but notes what pip should install instead of installing it.
FAKE_PYTHON = """#!/bin/bash
if [ "$1 $2" = "-m pip" ]; then
    [ "$3" != install ] || {{ printf '%s\\n' "${{*: 4}}" >>"{log}"; exit "${{PIP_STATUS:-0}}"; }}
    exit 0
fi
exec "{python}" "$@"
"""

# An interpreter that says to be another version, and one that does not run, as shims of absent versions do not.
FAKE_VERSION = """#!/bin/bash
exec "{python}" -I -c 'import platform, sys
sys.version_info = ({major}, {minor}, 1, "final", 0)
platform.python_version = lambda: "{major}.{minor}.1"
exec(sys.argv[1])' "$3"
"""
BROKEN = "#!/bin/bash\necho 'not installed' >&2\nexit 127\n"


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """A copy of what setup needs, in a folder whose name has a space."""
    folder = tmp_path / "a checkout"
    (folder / "script").mkdir(parents=True)
    for name in ("setup.sh", "demo.sh"):
        shutil.copy(repository / "script" / name, folder / "script")
    for path in repository.glob("requirements*.txt"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH that holds a few tools and no Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def setup(checkout: Path, programs: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(checkout / "script/setup.sh"), *arguments],
        env={"PATH": str(programs), "HOME": str(checkout)} | environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def check_refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("setup: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize("system", ["MINGW64_NT-10.0", "CYGWIN_NT-10.0", "SunOS"])
def test_platforms_that_cannot_work(checkout: Path, programs: Path, system: str) -> None:
    (programs / "uname").unlink()
    write_program(programs / "uname", f"#!/bin/bash\necho {system}\n")
    check_refused(setup(checkout, programs), "WSL 2")


def test_no_python(checkout: Path, programs: Path) -> None:
    check_refused(setup(checkout, programs), "no Python found; install Python 3.11, 3.12 or 3.13")


@pytest.mark.parametrize(("major", "minor"), [(3, 10), (3, 14), (2, 7)])
def test_unsuitable_python(checkout: Path, programs: Path, major: int, minor: int) -> None:
    write_program(programs / "python3", FAKE_VERSION.format(python=sys.executable, major=major, minor=minor))
    write_program(programs / "python3.12", BROKEN)
    check_refused(setup(checkout, programs), f"is Python {major}.{minor}.1; install Python 3.11, 3.12 or 3.13")
    assert not (checkout / ".venv").exists()


def test_active_environment_that_does_not_run(checkout: Path, programs: Path) -> None:
    check_refused(setup(checkout, programs, VIRTUAL_ENV="/nonexistent"), "VIRTUAL_ENV is /nonexistent")


def test_installs_once_and_again_when_interrupted_or_changed(checkout: Path, programs: Path, tmp_path: Path) -> None:
    environment, log = tmp_path / "an environment", tmp_path / INSTALLED
    write_program(environment / "bin/python", FAKE_PYTHON.format(log=log, python=sys.executable))

    def installed(*arguments: str, **variables: str) -> tuple[int, list[str]]:
        log.unlink(missing_ok=True)
        result = setup(checkout, programs, *arguments, VIRTUAL_ENV=str(environment), **variables)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return result.returncode, [line.replace("--disable-pip-version-check --no-user ", "") for line in lines]

    first, then, tests = (checkout / f"requirements{suffix}.txt" for suffix in ("", "-unsloth", "-test"))
    everything = [f"-r {first}", f"--no-deps -r {then}"]
    assert installed(PIP_STATUS="1") == (2, everything[:1])
    assert installed() == (0, everything)
    assert installed() == (0, [])
    assert installed("--tests") == (0, [f"-r {tests}"])
    assert installed("--tests") == (0, [])
    then.write_text(then.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert installed(PIP_STATUS="1") == (2, everything[:1])
    assert installed("--tests") == (0, everything)
    assert installed("--tests") == (0, [])


@pytest.mark.parametrize("argument", ["use_unsloth", "output_dir=elsewhere"])
def test_demo_refuses_what_it_cannot_pass_on(checkout: Path, argument: str) -> None:
    command = ["bash", str(checkout / "script/demo.sh"), argument]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("demo: ") and result.stderr.count("\n") == 1


def test_requirements_are_pinned(repository: Path) -> None:
    for path in repository.glob("requirements*.txt"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert lines and all("==" in line for line in lines), path
