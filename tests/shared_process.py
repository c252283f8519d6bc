"""A new Python process that does one thing after the other: what it imports, it imports once for all of them.

Unsloth takes up to a minute to import and patches its process, so tests that need it share one. The process ends where
something fails in it, and what is asked next gets a new one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Around the program, which finds its arguments as if these lines were not there. The connection ends with the process,
#: after whatever that has to tell.
HEAD = """
import sys
_connection = int(sys.argv.pop())
"""
LOOP = """
import json, socket
_socket = socket.socket(fileno=_connection)
for _request in _socket.makefile("r"):
    _socket.sendall(json.dumps(answer(**json.loads(_request))).encode() + b"\\n")
"""


class SharedProcess:
    """The process, which is started when something is asked.

    Args:
        program: Python that defines `answer`, a function from keyword arguments to a result; both travel as JSON.
        arguments: `sys.argv[1:]` of the program.
        cwd: its directory, from which it also imports.
        env: its environment.
    """

    def __init__(self, program: str, *arguments: str, cwd: Path, env: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-u", "-c", HEAD + program + LOOP, *arguments]
        self._cwd, self._env = cwd, dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *, timeout: float = 600, **request: Any) -> Any:
        """What `answer` returns; what the process has written meanwhile is printed.

        Args:
            timeout: in seconds, of the imports too where they are not done yet.

        Raises:
            AssertionError: it failed, or took too long; with the end of what it wrote.
        """
        if self._process is None:
            self._start()
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._answers.readline()
        except (TimeoutError, ConnectionError):  # the latter where it ended before it had read the request
            line = ""
        written = self._written()
        print(written)
        if not line:
            self._kill()
            raise AssertionError(f"no answer to {request}: {written[-4000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end, which gives back its memory.

        Raises:
            AssertionError: it does not end well.
        """
        if self._process is None:
            return
        self._socket.shutdown(socket.SHUT_WR)
        try:
            code = self._process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            code = None
        written = self._written()
        self._kill()
        assert code == 0, f"the process ended with {code}: {written[-4000:]}"

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._answers = self._socket.makefile("r")
        self._log, self._num_shown = tempfile.TemporaryFile(), 0  # noqa: SIM115 (closed in `_kill`)
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                cwd=self._cwd, env=self._env, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        for file in (self._answers, self._socket, self._log):
            file.close()
        self._process = None

    def _written(self) -> str:
        """What it has written since the last time, read without moving the place at which it writes."""
        file = self._log.fileno()
        text = os.pread(file, os.fstat(file).st_size - self._num_shown, self._num_shown)
        self._num_shown += len(text)
        return text.decode(errors="replace")
