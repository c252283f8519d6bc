"""A child process of a benchmark: its output in a file, its end, and when its first step was done."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from component.runtime.environment import REPOSITORY

#: Seconds between looks at a child, and that it has to write what it must after it was asked to end.
INTERVAL, PATIENCE = 0.1, 20
#: Of Linux's prctl: the signal that a process gets when the one that started it has ended.
PR_SET_PDEATHSIG = 1
#: Lines of a child's output that a result keeps where it did not end well.
NUM_LINES = 15
#: A variable; each process would else take as many threads as there are cores.
THREADS = "OMP_NUM_THREADS"
#: Of every child: no network, and results that do not depend on a service.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "TOKENIZERS_PARALLELISM": "true",
}


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        first_step_seconds: from its start to the end of its first step; None where it was not seen.
        lines: the last ones of its output.
    """

    code: int
    seconds: float
    first_step_seconds: float | None
    lines: tuple[str, ...]


class Child:
    """A command at the root of the checkout, at work once this is made.

    Args:
        log: takes its output.
        environment: variables beside those of this process.
    """

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log, self._began = log, time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**ENVIRONMENT, **os.environ, **(environment or {})},
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=ending_with_this_process(),
            )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def has_ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None

    def ended(self, first_step_seconds: float | None = None) -> Ended:
        """How it ended, which it must have."""
        # Results are shared, and where a checkout lies is nobody's business.
        text = self._log.read_text(encoding="utf-8", errors="replace").replace(f"{REPOSITORY}{os.sep}", "")
        lines = tuple(text.splitlines()[-NUM_LINES:])
        return Ended(self.process.returncode, self.seconds, first_step_seconds, lines)


def ending_with_this_process() -> Callable[[], None] | None:
    """What a child does before its command, so that it is killed where this process is, which then cannot end it.

    Its run would go on beside those of the next command, in the same folders and on the same GPU. To Linux the thread
    that starts a child is what started it: one that lives as long as the child does, such as the main thread.

    Returns:
        For `preexec_fn` of subprocess; None but on Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def bind() -> None:
        """Ask for the signal, and end where the parent has ended before that."""
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind


def child_share(jobs: int, number: int, folder: Path) -> dict[str, str]:
    """Variables of one of several children: its share of the cores unless the environment says, code of its own.

    Args:
        jobs: children at once; one alone has all.
        folder: of the code that Unsloth makes; it makes it in place, where another process may be reading it.
    """
    if jobs == 1:
        return {}
    share = {} if THREADS in os.environ else {THREADS: str(max(1, num_cores() // jobs))}
    return {**share, "UNSLOTH_COMPILE_LOCATION": str(folder / f"unsloth_compiled-{number}")}


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    first_step: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command at the root of the checkout and wait for it.

    Args:
        log: takes its output.
        first_step: a file that has something in it once the first step is done.
        environment: variables beside those of this process.
    """
    child, stepped = Child(command, log=log, environment=environment), None
    try:
        while not child.has_ended():
            time.sleep(INTERVAL)
            if stepped is None and _has_content(first_step):
                stepped = child.seconds
    finally:
        end_children([child])
    return child.ended(stepped)


def end_children(children: Iterable[Child]) -> None:
    """End those that are still at work: after Ctrl-C, which they have too, or where this process is told to end."""
    processes = [child.process for child in children if not child.has_ended()]
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _has_content(path: Path | None) -> bool:
    return path is not None and path.is_file() and path.stat().st_size > 0
