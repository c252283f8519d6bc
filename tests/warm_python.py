"""Python processes that begin with the libraries imported: forks of one process that has done nothing but import them.

A child of it has arguments, directory, environment, output and end of its own, as a new interpreter has, and begins in
milliseconds instead of ten seconds. What imports first, or not at all, is to be shown in a new interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODULES = (
    "bitsandbytes", "datasets", "matplotlib.backends.backend_agg", "matplotlib.figure", "peft", "peft.tuners.lora.bnb",
    "tensorboard", "torch", "transformers", "transformers.models.llama.modeling_llama", "trl",
    "trl.trainer.sft_trainer", "component.data.prepare", "component.pipeline.describe", "component.pipeline.merge",
    "component.pipeline.run", "component.pipeline.train", "component.planning.plan", "component.trainers.sft",
)  # fmt: skip


class WarmPython:
    """The process that is forked; it is started when it is first needed.

    Args:
        folder: of the code that is imported.
        environment: of that process; libraries that read it when they are imported keep what they read.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = False,
        timeout: float = 300,
        **_: Any,
    ) -> subprocess.CompletedProcess[str]:
        """`subprocess.run` of `[python, script, *arguments]` or `[python, "-c", code, *arguments]`, output captured."""
        if self._process is None:
            self._start()
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            request = {"command": list(command), "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
            self._send({**request, "files": files})
            pid = self._receive(60)
            try:
                code = self._receive(timeout)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self.close()
                raise subprocess.TimeoutExpired(list(command), timeout) from None
            texts = [Path(file).read_text(encoding="utf-8") for file in files]
        finished = subprocess.CompletedProcess(list(command), code, *texts)
        if check:
            finished.check_returncode()
        return finished

    def close(self) -> None:
        """End the process; it ends too when this one does."""
        if self._process is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._process.wait(timeout=30)
            self._process = None

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        environment = {**self._environment, "PYTHONPATH": os.pathsep.join(filter(None, self._search_path()))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            cwd=self._folder, env=environment, pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self._lines = self._socket.makefile("r")
        self._receive(300)

    def _search_path(self) -> list[str]:
        return [str(self._folder), self._environment.get("PYTHONPATH", "")]

    def _send(self, request: Mapping[str, Any]) -> None:
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def _receive(self, seconds: float) -> int:
        self._socket.settimeout(seconds)
        line = self._lines.readline()
        assert line, "the process that is forked has ended"
        return int(line)


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, and say its process id and its exit code.

    Returns:
        None at the end; in a forked process its request.
    """
    requests = connection.makefile("r")
    connection.sendall(b"0\n")
    for line in requests:
        pid = os.fork()
        if not pid:
            request = json.loads(line)
            requests.close()
            connection.close()
            return request
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    return None


def become(request: Mapping[str, Any]) -> None:
    """Do what a new interpreter would do with a command."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, file in enumerate(request["files"], start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    first, *arguments = request["command"][1:]
    more = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if first == "-c":
        code, *arguments = arguments
        sys.argv, sys.path[:1] = ["-c", *arguments], ["", *more]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[:1] = [first, *arguments], [str(Path(first).resolve().parent), *more]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    if (asked := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        become(asked)
