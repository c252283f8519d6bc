"""The runs of suite `auto`: a grid of settings, each measured once, and `auto` under each cap of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from component.config.memory_rules import OFFLOADED
from component.pipeline.benchmark.case import TRAIN, Case, Rows
from component.pipeline.benchmark.chat_cases import AUTO, COMMON, QUICK_KEYS

CAPS = (8, 12, 16, 24, 48, 80, 141)
#: Of an epoch and of its evaluation; a step has so many rows, packs where rows are packed.
NUM_ROWS, NUM_EVAL_ROWS, GLOBAL_BATCH, LENGTH, MEAN_TOKENS = 512, 64, 8, 2048, 330
WARM_UP = 2
ALL, HALF, NONE = "all layers recompute", "half of the layers recompute", "no layer recomputes"


@dataclass(frozen=True)
class Point:
    """A point of the grid."""

    packing: bool
    rows: int
    recomputation: str
    dequantizes: bool
    offloaded: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For the table."""
        parts = ["packed" if self.packing else "padded", f"{self.rows} rows", self.recomputation]
        parts += ["dequantized base"] if self.dequantizes else []
        modules = " and ".join(OFFLOADED[key][1] for key in self.offloaded)
        return ", ".join([*parts, *([f"{modules} offloaded"] if modules else [])])

    def settings(self, num_layers: int) -> dict[str, Any]:
        """Its keys.

        Args:
            num_layers: of the model.
        """
        return {
            "packing": self.packing,
            "per_device_train_batch_size": self.rows,
            "gradient_accumulation_steps": GLOBAL_BATCH // self.rows,
            "gradient_checkpointing": self.recomputation != NONE,
            **({"checkpoint_skip_layers": num_layers // 2} if self.recomputation == HALF else {}),
            **({"dequantize_base": True} if self.dequantizes else {}),
            **dict.fromkeys(self.offloaded, True),
        }


def grid_points(micro_batches: Sequence[int], *, may_offload: bool) -> Iterator[Point]:
    """The grid: packed rows in every combination, padded ones in the largest micro-batch alone, where they do best.

    Args:
        may_offload: whether embedding and head can be in main memory; such points need a process of their own, and are
            last.
    """
    for rows in micro_batches:
        for recomputation in (ALL, HALF, NONE):
            for dequantizes in (False, True):
                yield Point(True, rows, recomputation, dequantizes)
    for recomputation in (ALL, NONE):
        for dequantizes in (False, True):
            yield Point(False, max(micro_batches), recomputation, dequantizes)
    for rows in micro_batches if may_offload else ():
        for number in range(1, 1 + len(OFFLOADED)):
            yield Point(True, rows, ALL, False, tuple(OFFLOADED)[:number])


#: On a CPU: what can be told apart there.
QUICK_POINTS = (Point(True, 1, ALL, False), Point(True, 2, NONE, False))
QUICK_ROWS, QUICK_LENGTH = 96, 128  # three steps of 8 packs or more, so that there are stretches to time


def build_case(name: str, model: str, settings: Mapping[str, Any], *, quick: bool) -> Case:
    """An epoch with evaluation at its end."""
    length, num_rows = (QUICK_LENGTH, QUICK_ROWS) if quick else (LENGTH, NUM_ROWS)
    mean = min(MEAN_TOKENS, length // 4)
    common = {key: value for key, value in COMMON.items() if key != "gradient_accumulation_steps"}
    keys = {
        **common, "use_unsloth": "require", "max_seq_length": length, "num_train_epochs": 1, "eval_strategy": "epoch",
        "logging_steps": 1 if quick else WARM_UP, **settings, **(QUICK_KEYS if quick else {}),
    }  # fmt: skip
    evaluation = Rows("chat", 8 if quick else NUM_EVAL_ROWS, length, mean)
    return Case(name, TRAIN, keys, model, Rows("chat", num_rows, length, mean), 1 if quick else WARM_UP, {}, evaluation)


def auto_case(cap: float, model: str, card_gib: float | None, *, quick: bool) -> Case:
    """`auto` under a cap.

    Args:
        card_gib: memory of the card; a cap beyond it is none.
    """
    capped = {} if card_gib is not None and cap >= card_gib else {"max_memory_gib": cap}
    settings = {
        "per_device_train_batch_size": "auto", **AUTO, **dict.fromkeys(OFFLOADED, "auto"),
        "global_batch_size": GLOBAL_BATCH, **capped,
    }  # fmt: skip
    del settings["optim"]  # that of the grid
    if quick:
        del settings["dequantize_base"]  # of qlora alone
    return build_case(f"auto, {cap:g} GiB", model, settings, quick=quick)
