"""Values of environment variables that a config refers to do not show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from component.config.load import load_config

PROGRAM = """
import sys
from pathlib import Path
from loguru import logger
from component.config.errors import UserError
from component.runtime.command import run_command
from component.runtime.logging import configure_logging
from component.runtime.redaction import hide

hide({"hunter2secret": "${oc.env:X}", "1": "${oc.env:N}", "/data/rows": "${oc.env:P}"})
configure_logging(Path(sys.argv[1]), 0)

def main():
    logger.info("token hunter2secret, 1 row of /data/rows")
    raise UserError("no such thing: hunter2secret")

sys.exit(run_command(main))
"""


def test_log_lines_and_errors_show_the_reference(repository: Path, tmp_path: Path) -> None:
    """Braces in the name of the log file are not loguru's."""
    file = tmp_path / "{x}" / "train.log"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", PROGRAM, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "no such thing: ${oc.env:X}"
    assert "token ${oc.env:X}, 1 row of /data/rows" in file.read_text()
    assert "hunter2secret" not in done.stdout + done.stderr + file.read_text()


def test_a_config_knows_the_values_it_took_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("SESAME", "hunter2secret")
    values = {"model_name_or_path": "m", "train_file": "d", "output_dir": "o", "run_name": "a-${oc.env:SESAME}-b"}
    config = load_config(values)
    assert config.run.output_dir == "o" and config.training.run_name == "a-hunter2secret-b"
    assert config.written["run_name"] == "a-${oc.env:SESAME}-b"
    assert config.from_environment == {"hunter2secret": "${oc.env:SESAME}"}
