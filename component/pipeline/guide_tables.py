"""The tables of docs/hyperparameters.md, from the numbers that hints and configs use; its text is written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from component.config.choices import HINT_KEYS
from component.config.hint import say_rate
from component.config.keys import SHIPPED_TASKS
from component.config.usual import (
    ADAPTER_SCALE,
    BETAS,
    BETAS_OF_MEANS,
    FAR_ABOVE,
    FEW_STEPS,
    KTO_BALANCE,
    LEARNING_RATES,
    MAX_EPOCHS,
    MAX_SHARE_CUT,
    MAX_SHARE_KNOWN,
    MAX_WARMUP_SHARE,
    MIN_GENERATIONS,
    MIN_KTO_BATCH,
    MIN_SAMPLES,
    RSLORA_SCALE,
    Usual,
)

_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def fill_tables(page: str, tables: Mapping[str, Callable[[], Iterator[str]]] | None = None) -> str:
    """The page with each block between `<!-- table: NAME -->` and `<!-- end -->` made anew.

    Args:
        tables: name -> lines; None for those of docs/hyperparameters.md.

    Raises:
        KeyError: there is no such table.
    """
    known = TABLES if tables is None else tables

    def fill(block: re.Match[str]) -> str:
        """The block with its lines made anew."""
        return block[1] + "".join(f"{line}\n" for line in known[block[2]]()) + block[3]

    return _BLOCK.sub(fill, page)


def _rates() -> Iterator[str]:
    yield "| task | lora, qlora | hint below, above | full | hint below, above |"
    yield "|---|---|---|---|---|"
    for task in SHIPPED_TASKS:
        cells = (cell for usual in (LEARNING_RATES[task].adapter, LEARNING_RATES[task].full) for cell in _cells(usual))
        yield f"| {task} | {' | '.join(cells)} |"


def _cells(usual: Usual) -> tuple[str, str]:
    return say_rate(usual.usual), f"{say_rate(usual.low)}, {say_rate(usual.high)}"


def _betas() -> Iterator[str]:
    yield "| task, or loss_type | beta | hint below, above |"
    yield "|---|---|---|"
    for name, usual in (BETAS | BETAS_OF_MEANS).items():
        yield f"| {name} | {' | '.join(_cells(usual))} |"


def _limits() -> Iterator[str]:
    yield "| key | a hint is given for |"
    yield "|---|---|"
    rates = "outside the limits of the table of learning rates"
    known, cut, warm = (f"{share:.0%}" for share in (MAX_SHARE_KNOWN, MAX_SHARE_CUT, MAX_WARMUP_SHARE))
    texts = {
        "beta": "outside the limits of the table of betas",
        "desirable_weight": f"kto: good answers that weigh less than {KTO_BALANCE.low:g} or more than "
        f"{KTO_BALANCE.high:g} times the bad ones",
        "eval_file": f"a file that is in train_file too; {known} or more of its rows equal to training rows",
        "eval_split": f"{known} or more of the held-out rows equal to training rows",
        "eval_steps": "a first evaluation after the end of the run",
        "fp16": "hardware that computes in bf16",
        "learning_rate": rates,
        "load_best_model_at_end": "several evaluations, of which the last weights are kept",
        "lora_alpha": f"lora_alpha / lora_rank outside {ADAPTER_SCALE.low:g} to {ADAPTER_SCALE.high:g}; with "
        f"use_rslora lora_alpha / sqrt(lora_rank) outside {RSLORA_SCALE.low:g} to {RSLORA_SCALE.high:g}",
        "lora_dropout": "preference tasks and reward, which train without dropout",
        "lora_target_modules": "layers of attention alone",
        "max_grad_norm": "0",
        "max_seq_length": f"{FAR_ABOVE} times the longest of {MIN_SAMPLES:,} samples or more; more than {cut} of the "
        "rows cut",
        "num_generations": f"grpo: fewer than {MIN_GENERATIONS}",
        "num_train_epochs": f"more than {MAX_EPOCHS} passes without a look at the evaluation; not for pretrain",
        "packing": f"off where the mean of {MIN_SAMPLES:,} samples or more is a {_ordinal(FAR_ABOVE)} of "
        f"max_seq_length or less; on where a run has fewer than {FEW_STEPS} steps with it alone",
        "per_device_train_batch_size": f"steps of one row; kto: micro-batches of fewer than {MIN_KTO_BATCH}",
        "template_name": "control tokens that a base model never saw; a chat model with plain turns",
        "use_dora": "together with Unsloth",
        "warmup_steps": f"a warm-up of more than {warm} of the run, or longer than it",
    }
    yield from (f"| `{key}` | {texts[key]} |" for key in HINT_KEYS)


def _ordinal(number: int) -> str:
    return {2: "half", 3: "third", 4: "quarter"}.get(number, f"{number}th part")


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {"learning_rates": _rates, "betas": _betas, "hints": _limits}
