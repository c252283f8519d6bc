"""Plain text, as pretraining takes it, to samples whose tokens are all learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.data.batch_encoding import BatchEncoder
from component.data.content_controls import PlainTextControls
from component.data.encoders.decoding import decode_exactly
from component.data.fingerprint import hash_tokenizer
from component.data.rows import EncodedRow, Row, RowError
from component.data.truncation import split_document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class DocumentEncoder:
    """Encodes documents; needs no chat template.

    A document begins with BOS where the tokenizer normally writes one, and never with two; it ends with EOS. One that
    is too long becomes several samples.

    Args:
        tokenizer: any tokenizer with an EOS token.
        max_seq_length: of a sample, in tokens, at least 2.
        keep_text: see `RowEncoder`.

    Raises:
        UserError: the tokenizer has no EOS token, so that a model could not learn where a document ends.
    """

    row_kind = "text"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, *, keep_text: bool = False) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                "model_name_or_path: its tokenizer has no EOS token to end a document with; set one in its files"
            )
        self.tokenizer = tokenizer
        self._encoder = BatchEncoder.of(tokenizer)
        self._controls = PlainTextControls(tokenizer)
        self.max_seq_length = max_seq_length
        self.keep_text = keep_text
        self._begins_with_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [
            tokenizer.bos_token_id
        ]

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        """Encode rows with `text`; see `RowEncoder`."""
        if not rows:
            return []
        ids = self._encoder.encode_ids([row.text or "" for row in rows])
        return [self._split(row, of_row) for row, of_row in zip(rows, ids, strict=True)]

    def facts(self) -> dict[str, Any]:
        """See `RowEncoder`."""
        return {
            "row_kind": self.row_kind,
            "tokenizer": hash_tokenizer(self.tokenizer),
            "max_seq_length": self.max_seq_length,
        }

    def _split(self, row: Row, ids: list[int]) -> EncodedRow | RowError:
        """Make samples of a document, however long."""
        if not ids:
            return RowError("the text is empty")
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        begins = self._begins_with_bos and ids[0] != bos
        ends = ids[-1] != eos
        framed = [*([bos] if begins else []), *ids, *([eos] if ends else [])]
        if len(framed) < 2:
            return RowError("no supervised token: a single token has nothing to predict")
        samples = tuple(split_document(framed, self.max_seq_length, row.source))
        notices = self._controls.check(row.text or "")
        if not self.keep_text:
            return EncodedRow(samples, notices=notices)
        if len(samples) > 1:
            texts = [decode_exactly(self.tokenizer, sample.input_ids) for sample in samples]
            pieces = zip(samples, texts, strict=True)
            return EncodedRow(tuple(replace(sample, text=text) for sample, text in pieces), notices=notices)
        bos_text, eos_text = self.tokenizer.bos_token if begins else "", self.tokenizer.eos_token if ends else ""
        whole = replace(samples[0], text=bos_text + (row.text or "") + eos_text)
        return EncodedRow((whole,), notices=notices)
