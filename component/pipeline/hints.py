"""Hints that need more than the config: the table of model families, the machine, the prepared data.

Written like those of `component.config.hints`; `--check` gives what needs no data, a prepared run all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from component.config.hint import Hint
from component.config.hints import HINTS as CONFIG_HINTS
from component.config.hints import hint_at, too_long_a_warmup
from component.config.keys import ADAPTER_MODES, LANGUAGE_MODEL_TASKS
from component.config.usual import FAR_ABOVE, FEW_STEPS, KTO_BALANCE, MAX_SHARE_CUT, MAX_SHARE_KNOWN, MIN_SAMPLES
from component.models.families import Checkpoint, checkpoints
from component.pipeline.steps import num_optimizer_steps, num_rows_per_step

if TYPE_CHECKING:
    from component.config.load import Config
    from component.data.prepare import PreparedData
    from component.runtime.hardware import Hardware

#: Named templates without control tokens of their own: what they write, any base model can learn.
PLAIN_TEMPLATES = ("default", "alpaca", "vicuna")
#: Modules that learn new control tokens where they are trained in full.
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings")


@dataclass(frozen=True)
class Facts:
    """What a prepared run knows of itself.

    Attributes:
        num_rows: of an epoch as batch sizes count them, before samples are packed.
    """

    config: Config
    hardware: Hardware
    data: PreparedData
    num_rows: int

    @cached_property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        training = self.config.training
        if not training.packing or self.config.model.task_type not in LANGUAGE_MODEL_TASKS:
            return num_optimizer_steps(training, self.num_rows)
        from component.data.packing import pack

        packs = pack(self.data.train.lengths, capacity=training.max_seq_length)
        return num_optimizer_steps(training, len(packs))


def check_hints(config: Config) -> tuple[Hint, ...]:
    """The hints of `--check`."""
    return _wanted(config, (hint for rule in (*CONFIG_HINTS, *MODEL_HINTS) for hint in rule(config)))


def run_hints(config: Config, hardware: Hardware, data: PreparedData, *, num_rows: int) -> tuple[Hint, ...]:
    """The hints of a prepared run: those of `--check`, and what its data and machine add."""
    facts = Facts(config, hardware, data, num_rows)
    return _wanted(config, (*check_hints(config), *(hint for rule in RUN_HINTS for hint in rule(facts))))


def _wanted(config: Config, hints: Iterable[Hint]) -> tuple[Hint, ...]:
    """One hint a key, the first; none where the config says that its choice is meant."""
    first: dict[str, Hint] = {}
    for hint in hints:
        if hint.key not in config.run.accepted_hints:
            first.setdefault(hint.key, hint)
    return tuple(first.values())


def hint_template(config: Config) -> Iterator[Hint]:
    """A base model with control tokens that it never saw, or a chat model without those that it knows."""
    model, name = _known_model(config), config.data.template_name
    if model is None or config.model.task_type == "pretrain":
        return
    trains_embeddings = config.model.train_mode not in ADAPTER_MODES or any(
        module in EMBEDDINGS for module in config.adapter.modules_to_save
    )
    if model.is_base and not trains_embeddings and name not in (*PLAIN_TEMPLATES, model.template):
        what = (
            f"{config.model.model_name_or_path} is a base model that never saw the control tokens of a chat template, "
            "and an adapter does not train their embeddings"
        )
        yield hint_at(config, "template_name", what, f"use template_name: {model.template_name}, or its chat model")
    elif not model.is_base and name == "default":
        what = f"{config.model.model_name_or_path} knows a chat template of its own, and default is another"
        yield hint_at(config, "template_name", what, f"use template_name: {model.template_name}")


def _known_model(config: Config) -> Checkpoint | None:
    name = config.model.model_name_or_path.rstrip("/").lower()
    return next((item for _, item in checkpoints() if item.hub_id.lower() == name), None)


def hint_single_rows(config: Config) -> Iterator[Hint]:
    """Steps of one row."""
    if num_rows_per_step(config.training) == 1 and not config.training.packing:
        what = "each step learns from a single row, so gradients are mostly noise"
        key = "gradient_accumulation_steps" if config.training.global_batch_size is None else "global_batch_size"
        yield hint_at(config, "per_device_train_batch_size", what, f"set {key}: 16")


def hint_run_warmup(facts: Facts) -> Iterator[Hint]:
    """A warm-up that the data is too little for."""
    training = facts.config.training
    is_counted = training.warmup_steps >= 1 and training.max_steps <= 0 and training.lr_scheduler_type != "constant"
    if is_counted and training.warmup_steps >= max(1, facts.num_steps):
        yield too_long_a_warmup(facts.config, facts.num_steps)


def hint_eval_steps(facts: Facts) -> Iterator[Hint]:
    """Evaluations that the run ends before."""
    training = facts.config.training
    steps = training.eval_steps
    if facts.config.values["eval_strategy"] == "steps" and steps is not None and steps > max(1, facts.num_steps):
        what = f"the run of {facts.num_steps:,} steps ends before its first evaluation at step {steps:,g}"
        yield hint_at(facts.config, "eval_steps", what, "use a share such as 0.1")


def hint_known_rows(facts: Facts) -> Iterator[Hint]:
    """Evaluation rows that are training rows too, token for token."""
    report = facts.data.eval_report
    if report is None or not facts.data.evaluation.num_rows:
        return
    share = report.rows_also_in_train / facts.data.evaluation.num_rows
    if share >= MAX_SHARE_KNOWN:
        what = (
            f"{report.rows_also_in_train:,} of {facts.data.evaluation.num_rows:,} evaluation rows equal a training "
            "row, so eval_loss says how well they were learned by heart"
        )
        if facts.config.data.eval_file is None:
            yield hint_at(facts.config, "eval_split", what, "train_file holds them more than once: keep each row once")
        else:
            yield hint_at(facts.config, "eval_file", what, "remove them from one of both")


def hint_packing(facts: Facts) -> Iterator[Hint]:
    """Short samples, each in a row of its own."""
    config, lengths = facts.config, facts.data.train.lengths
    if config.model.task_type not in LANGUAGE_MODEL_TASKS or config.training.packing or len(lengths) < MIN_SAMPLES:
        return
    limit, mean = config.training.max_seq_length, float(lengths.mean())
    if mean * FAR_ABOVE <= limit < int(lengths.max()) * FAR_ABOVE:
        what = f"samples have {mean:,.0f} tokens on average, and max_seq_length {limit:,} is planned for"
        fix = "packing: auto fills rows with several; each counts as one in batch sizes"
        yield hint_at(config, "packing", what, fix)


def hint_few_steps(facts: Facts) -> Iterator[Hint]:
    """Few steps where a step has as many packed rows as it would have others."""
    config, training = facts.config, facts.config.training
    before, rows = num_optimizer_steps(training, facts.num_rows), num_rows_per_step(training)
    fewer = max(1, round(rows * facts.num_steps / before))
    if facts.num_steps < FEW_STEPS <= before and fewer < rows:
        key = "global_batch_size" if training.global_batch_size is not None else "rows a step"
        what = (
            f"rows hold several samples, so that the run has {facts.num_steps:,} steps of {rows} rows instead of "
            f"{before:,}"
        )
        yield hint_at(config, "packing", what, f"{key}: {fewer} learns from about as many samples a step as before")


def hint_limit(facts: Facts) -> Iterator[Hint]:
    """A length limit that no sample comes near, or that many are cut at."""
    config, samples, report = facts.config, facts.data.train, facts.data.report
    limit = config.training.max_seq_length
    if len(samples) >= MIN_SAMPLES and not config.training.packing:
        longest = int(samples.lengths.max())
        if longest * FAR_ABOVE <= limit:
            what = f"the longest of {len(samples):,} samples has {longest:,} tokens, and {limit:,} are planned for"
            yield hint_at(config, "max_seq_length", what, f"use {2 ** math.ceil(math.log2(longest))}")
    kept = report.rows_used - report.rows_held_out - report.rows_left_out
    if kept and report.rows_truncated / kept > MAX_SHARE_CUT:
        what = f"{report.rows_truncated:,} of {kept:,} rows are cut at {limit:,} tokens"
        yield hint_at(config, "max_seq_length", what, "raise it, or use truncation: split_turns with sft")


def hint_labels(facts: Facts) -> Iterator[Hint]:
    """Answers of kto that are nearly all good, or bad (equation 8 of https://arxiv.org/abs/2402.01306)."""
    if facts.config.model.task_type != "kto":
        return
    kto, labels = facts.config.kto, facts.data.train.of_rows("label").astype(bool)
    num_good, num_bad = int(labels.sum()), int((~labels).sum())
    if not num_good or not num_bad:
        what = f"all {len(labels):,} answers are {'good' if num_good else 'bad'}, and nothing shows the difference"
        yield Hint("desirable_weight", what, "add answers of the other kind")
        return
    ratio = kto.desirable_weight * num_good / (kto.undesirable_weight * num_bad) if kto.undesirable_weight else 0.0
    if not KTO_BALANCE.low <= ratio <= KTO_BALANCE.high:
        what = f"{num_good:,} good and {num_bad:,} bad answers weigh {ratio:.3g} to 1"
        fix = f"use {(kto.undesirable_weight or 1) * num_bad / num_good:.3g}, so that both kinds weigh alike"
        yield hint_at(facts.config, "desirable_weight", what, fix)


def hint_half_precision(facts: Facts) -> Iterator[Hint]:
    """The format with the smaller range where the hardware has the larger."""
    if facts.config.training.fp16 and facts.hardware.supports_bf16:
        what = f"{facts.hardware.name} computes in bf16, whose range needs no loss scaling"
        yield hint_at(facts.config, "fp16", what, "drop it, or set bf16: true")


MODEL_HINTS: tuple[Callable[[Config], Iterator[Hint]], ...] = (hint_template, hint_single_rows)
RUN_HINTS: tuple[Callable[[Facts], Iterator[Hint]], ...] = (
    hint_run_warmup,
    hint_eval_steps,
    hint_known_rows,
    hint_packing,
    hint_few_steps,
    hint_limit,
    hint_labels,
    hint_half_precision,
)
