"""Where log lines go, in a process of their own: logging is global."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def run(repository: Path, code: str, *arguments: str) -> str:
    """Standard error of a Python program that has configure_logging at hand."""
    head = (
        "import logging, sys, warnings\nfrom pathlib import Path\nfrom loguru import logger\n"
        "from component.runtime.logging import configure_logging\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", head + code, *arguments], cwd=repository, capture_output=True, text=True, check=True
    )
    assert answer.stdout == ""
    return answer.stderr


def test_the_main_process_logs_to_terminal_and_file(repository: Path, tmp_path: Path) -> None:
    code = (
        "configure_logging(None, 0)\nlogger.info('before')\n"
        "configure_logging(Path(sys.argv[1]), 0)\nlogger.info('after {x}')\nlogger.debug('hidden')"
    )
    file = tmp_path / "train.log"
    lines = run(repository, code, str(file)).splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == ["INFO    before", "INFO    after {x}"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    after \{x\}\n", file.read_text())


def test_other_ranks_warn_and_write_no_file(repository: Path, tmp_path: Path) -> None:
    code = "configure_logging(Path(sys.argv[1]), 1)\nlogger.info('quiet')\nlogger.warning('loud')"
    lines = run(repository, code, str(tmp_path / "train.log")).splitlines()
    assert len(lines) == 1 and lines[0].endswith("WARNING loud")
    assert not (tmp_path / "train.log").exists()


def test_libraries_and_warnings_take_the_same_way_once(repository: Path, tmp_path: Path) -> None:
    code = (
        "configure_logging(None, 0)\n"
        "import transformers.utils.logging\nlibrary = transformers.utils.logging.get_logger('transformers.models.x')\n"
        "configure_logging(Path(sys.argv[1]), 0)\n"
        "for _ in range(3):\n    library.warning('slow tokenizer')\n    warnings.warn('old argument', FutureWarning)\n"
        "library.info('hidden')\nlogging.getLogger('peft').error('broken %s', 'adapter')"
    )
    file = tmp_path / "train.log"
    on_terminal = run(repository, code, str(file)).splitlines()
    in_file = file.read_text().splitlines()
    expected = [
        "WARNING transformers: slow tokenizer",
        "WARNING FutureWarning: old argument (<string>:11)",
        "ERROR   peft: broken adapter",
    ]
    assert [line[9:] for line in on_terminal] == expected
    assert [line[25:] for line in in_file] == expected


def test_a_traceback_shows_no_values(repository: Path, tmp_path: Path) -> None:
    code = (
        "configure_logging(Path(sys.argv[1]), 0)\n"
        "def ask(token):\n    raise ValueError('refused')\n"
        "try:\n    ask('hf_' + 'secret')\nexcept ValueError:\n    logger.exception('failed')"
    )
    text = run(repository, code, str(tmp_path / "train.log"))
    assert "ValueError: refused" in text and "hf_secret" not in text
    assert "hf_secret" not in (tmp_path / "train.log").read_text()
