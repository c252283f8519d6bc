"""How many threads the tokenizer encodes with."""

from __future__ import annotations

import os

_VARIABLE = "RAYON_NUM_THREADS"
_SWITCH = "TOKENIZERS_PARALLELISM"
_OFF = frozenset({"", "off", "false", "f", "no", "n", "0"})  # as the tokenizers library reads the switch
_in_force: str | None = None


def set_tokenizer_threads(num_threads: int | None) -> tuple[str, ...]:
    """Fix the number of threads before the first batch is encoded in this process.

    The tokenizer's thread pool is made once, at the first batch, from an environment variable: a later call with
    another number can change nothing and says so.

    Args:
        num_threads: how many; None leaves the variable as the user set it, which without one means all cores.

    Returns:
        Notices.
    """
    global _in_force
    # The processes of a data loader never tokenize: without an explicit value the library warns in each of them.
    switch = os.environ.setdefault(_SWITCH, "true")
    wanted = os.environ.get(_VARIABLE, "") if num_threads is None else str(num_threads)
    if _in_force is not None and wanted != _in_force:
        kept = f"threads: {_in_force}" if _in_force else "all cores"
        return (f"tokenize_num_workers: {wanted or 'null'} has no effect, this process began with {kept}",)
    _in_force = wanted
    if wanted:
        os.environ[_VARIABLE] = wanted
    if switch.lower() in _OFF and num_threads is not None and num_threads > 1:
        return (
            f"tokenize_num_workers: {num_threads} has no effect, {_SWITCH}={switch} in the environment allows one "
            "thread; unset it",
        )
    return ()
