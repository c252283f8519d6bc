"""Prepare many chat rows and measure it: rows a second, peak memory, and how it goes on after it was killed.

    python script/measure_preparation.py --tokenizer Qwen/Qwen2.5-7B-Instruct --rows 1000000 --kill_after 120

The rows are made up, about 194 tokens of Qwen2.5 each. The preparation runs in a process of its own, whose memory is
read from /proc: all that is resident, and what of it is no page of a mapped file, which the system may drop.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.pipeline.benchmark.data_suite import write_chat_rows
from component.runtime.command import positive_int, run_command


def prepare(options: argparse.Namespace) -> None:
    """Prepare the rows in this process and print what became of them."""
    from component.config.load import load_config
    from component.pipeline.run_data import prepare_run_data
    from component.runtime.logging import configure_logging

    values = {
        "model_name_or_path": options.tokenizer,
        "train_file": str(options.output / "rows.jsonl"),
        "output_dir": str(options.output),
        "cache_dir": str(options.output / "cache"),
        "tokenize_num_workers": options.threads,
    }
    configure_logging(None, 0)
    began = time.monotonic()
    data = prepare_run_data(load_config(values), "messages", needs_model=False).data
    seconds = time.monotonic() - began
    lengths = data.train.lengths
    print(
        f"prepared {len(lengths):,} samples, {int(lengths.sum()):,} tokens, mean {lengths.mean():.1f}, {seconds:.1f} s"
    )


def measure(options: argparse.Namespace, *, kill_after: float | None = None) -> None:
    """Prepare the rows in a process of its own and print its time and its memory."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child"]
    began = time.monotonic()
    child = subprocess.Popen(command)
    peaks = {"VmHWM": 0, "RssAnon": 0}
    while child.poll() is None:
        for name, size in read_memory(child.pid).items():
            peaks[name] = max(peaks[name], size)
        if kill_after is not None and time.monotonic() - began > kill_after:
            child.send_signal(signal.SIGKILL)
            child.wait()
        time.sleep(0.1)
    what = "killed" if child.returncode == -signal.SIGKILL else f"exit code {child.returncode}"
    print(
        f"{what} after {time.monotonic() - began:.0f} s; peak memory {peaks['VmHWM'] / 2**20:.2f} GiB, "
        f"{peaks['RssAnon'] / 2**20:.2f} GiB without mapped files",
        flush=True,
    )
    if child.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(child.returncode)


def read_memory(process: int) -> dict[str, int]:
    """Memory of a process in KiB: the peak of all that is resident, and what of it is no mapped file now."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) for name in ("VmHWM", "RssAnon") if name in values}


def main() -> int:
    """Write the rows where they are not, prepare them, perhaps killed once before, and once more from the cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="hub id or folder with a chat template")
    parser.add_argument("--rows", type=positive_int, default=1_000_000)
    parser.add_argument("--threads", type=positive_int, help="of the tokenizer; all cores by default")
    parser.add_argument("--kill_after", type=positive_int, metavar="SECONDS", help="kill the first attempt")
    parser.add_argument("--output", type=Path, default=Path("output/measure-preparation"), help="a folder")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        prepare(options)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    rows = options.output / "rows.jsonl"
    if not rows.exists():
        write_chat_rows(rows, options.rows)
    print(f"{rows}: {rows.stat().st_size / 2**20:,.0f} MiB", flush=True)
    if options.kill_after is not None:
        measure(options, kill_after=options.kill_after)
    measure(options)
    measure(options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
