"""What the loops of script/baselines/ share: their settings, chat rows as ids, a memory cap, clocks and counters.

They read the same settings file as train.py does, those keys that they know.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.errors import EXIT_DONE, EXIT_OUT_OF_MEMORY
from component.pipeline.benchmark.measured import RESULT
from component.planning.gpus import CONTEXT_BYTES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass(frozen=True)
class Chat:
    """A conversation of one turn as texts and ids; the loss leaves out the prompt."""

    prompt: str
    answer: str
    input_ids: tuple[int, ...]
    num_prompt_tokens: int

    @property
    def labels(self) -> list[int]:
        """The ids that the loss counts."""
        return [IGNORED] * self.num_prompt_tokens + list(self.input_ids[self.num_prompt_tokens :])


def read_chats(path: Path, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> list[Chat]:
    """Rows of `rows.write_rows`, rendered by the tokenizer's chat template and cut at the end.

    Args:
        max_seq_length: in tokens.
    """
    chats = []
    for line in path.read_text(encoding="utf-8").splitlines():
        (turn,) = json.loads(line)["conversation"]
        question = [{"role": "user", "content": turn["human"]}]
        answer = {"role": "assistant", "content": turn["assistant"]}
        prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*question, answer], tokenize=False)
        prompt_ids, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole))
        chats.append(Chat(prompt, whole.removeprefix(prompt), tuple(ids[:max_seq_length]), len(prompt_ids)))
    return chats


class Meter:
    """Counts tokens and times steps after those of the warm-up; waits for the device at their ends only.

    Args:
        first_step: a file that gets its content when the first step is done.
    """

    def __init__(self, warm_up: int, first_step: Path | None = None) -> None:
        self._warm_up, self._first_step = warm_up, first_step
        self._counts: list[tuple[Tensor | int, int]] = []
        self._losses: list[Tensor | float] = []
        self._began: float | None = None
        self._skipped = 0

    def count(self, real: Tensor | int, padded: int) -> None:
        """Add a micro-batch: its tokens without and with padding."""
        self._counts.append((real, padded))

    def end_step(self, loss: Tensor | float) -> None:
        """Note the end of an optimizer step."""
        self._losses.append(loss)
        if len(self._losses) == 1 and self._first_step is not None:
            synchronize()
            self._first_step.write_text("1\n", encoding="utf-8")
        if len(self._losses) == self._warm_up:
            synchronize()
            self._began, self._skipped = time.monotonic(), len(self._counts)

    def result(self) -> dict[str, Any]:
        """What was measured, in the form of `measured.read_run`."""
        assert self._began is not None, "fewer steps than those of the warm-up"
        synchronize()
        seconds, counts = time.monotonic() - self._began, self._counts[self._skipped :]
        real, padded = (sum(int(pair[place]) for pair in counts) for place in (0, 1))
        losses = [float(loss) for loss in self._losses]
        return {
            "real_tokens_per_second": real / seconds,
            "padded_tokens_per_second": padded / seconds,
            **peaks(),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "losses": [[step, loss] for step, loss in enumerate(losses, 1)],
        }


def peaks() -> dict[str, int | None]:
    """Peak memory of the GPU in bytes; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return {"peak_allocated_bytes": None, "peak_reserved_bytes": None}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cap_memory(settings: Mapping[str, Any]) -> None:
    """Let the process take no more than `max_memory_gib` of the GPU, CUDA's own included, where that key is set."""
    import torch

    cap = settings.get("max_memory_gib")
    if cap is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (cap * 2**30 - CONTEXT_BYTES) / total))


def give_varlen_kernel(model: Any) -> str:
    """Give Unsloth torch's variable-length kernel for packed rows, as the loader does; returns what they run on."""
    from importlib import metadata

    from component.models.host_weights import device_of
    from component.models.unsloth_attention import DISPATCH, prepare_packed_attention
    from component.runtime.hardware import detect_hardware

    got = prepare_packed_attention(
        sys.modules.get(DISPATCH), model.config, detect_hardware(), unsloth_version=metadata.version("unsloth"),
        compute_dtype="bfloat16", device=device_of(model),
    )  # fmt: skip
    return got.got


def run_baseline(
    description: str,
    measure: Callable[[dict[str, Any], int, Path], Mapping[str, Any]],
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of a baseline: read the settings, measure, write the result.

    Args:
        measure: takes the settings, the number of warm-up steps and a file to write into when the first step is done.

    Returns:
        The exit code: EXIT_OUT_OF_MEMORY where that was the reason.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--train_args_file", type=Path, required=True, metavar="FILE", help="keys as train.py has them")
    parser.add_argument("--warm_up", type=int, default=2, metavar="N", help="steps that are not timed")
    options = parser.parse_args(arguments)
    settings = json.loads(options.train_args_file.read_text(encoding="utf-8"))
    output = Path(settings["output_dir"])
    output.mkdir(parents=True, exist_ok=True)
    import torch

    try:
        cap_memory(settings)
        result = measure(settings, options.warm_up, output / "metrics.jsonl")
    except torch.OutOfMemoryError as error:
        print(f"out of memory: {str(error).splitlines()[0]}", file=sys.stderr)
        return EXIT_OUT_OF_MEMORY
    (output / RESULT).write_text(json.dumps(result) + "\n", encoding="utf-8")
    return EXIT_DONE
