"""Prepared samples and dropped rows as lines of files, for other programs to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from component.artifacts.terminal import one_line
from component.data.encoders.decoding import decode_exactly
from component.data.rows import Failure, Prepared
from component.pipeline.sample_text import parts_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from component.data.prepare import PreparedData


def json_lines(data: PreparedData, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """A JSON object for each sample: those of training in their order, then those of evaluation.

    It holds `source` (file:line; the samples of one row share it), `split` ("evaluation", absent for training) and
    what training sees: `input_ids`, `labels` (-100 where not supervised) and `text` (what the ids encode), for a
    preference under `chosen` and `rejected`; `label` for a labelled answer, `columns` for a prompt that has some.
    """
    for split, samples in (("train", data.train), ("evaluation", data.evaluation)):
        for sample in samples:
            record: dict[str, Any] = {"source": str(sample.source)}
            if split != "train":
                record["split"] = split
            for name, part in parts_of(sample):
                tokens = _tokens(part, tokenizer)
                record |= {name: tokens} if name else tokens
            yield json.dumps(record, ensure_ascii=False)


def failure_lines(failures: Iterable[Failure]) -> Iterator[str]:
    """`file:line: reason` for each dropped row."""
    for failure in failures:
        yield one_line(str(failure))


def _tokens(sample: Prepared, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    text = decode_exactly(tokenizer, sample.input_ids) if sample.text is None else sample.text
    tokens: dict[str, Any] = {"input_ids": list(sample.input_ids), "labels": sample.labels(), "text": text}
    if sample.label is not None:
        tokens["label"] = sample.label
    if sample.columns:
        tokens["columns"] = dict(sample.columns)
    return tokens
