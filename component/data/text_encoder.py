"""Plain text, as pretraining takes it, to token ids that are all supervised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.data.rows import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EncodedText = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]


class TextEncoder:
    """Encodes documents; needs no chat template.

    A document begins with BOS where the tokenizer normally writes one, and never with two; it ends with EOS.

    Args:
        tokenizer: any tokenizer with an EOS token.

    Raises:
        UserError: the tokenizer has no EOS token, so that a model could not learn where a document ends.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                "model_name_or_path: its tokenizer has no EOS token to end a document with; set one in its files"
            )
        self.tokenizer = tokenizer
        self._begins_with_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [
            tokenizer.bos_token_id
        ]

    def encode(self, text: str, *, add_bos: bool = True, add_eos: bool = True) -> EncodedText:
        """Token ids of a document and its one supervised span, which holds all of them; see `encode_batch`.

        Raises:
            RowError: the text is empty.
        """
        (encoded,) = self.encode_batch([text], add_bos=add_bos, add_eos=add_eos)
        if isinstance(encoded, RowError):
            raise encoded
        return encoded

    def encode_batch(
        self, texts: Sequence[str], *, add_bos: bool = True, add_eos: bool = True
    ) -> list[EncodedText | RowError]:
        """Encode many documents at once.

        Args:
            texts: the documents.
            add_bos: begin with BOS where the tokenizer normally does; false for the later pieces of a document.
            add_eos: end with EOS; false for the earlier pieces of a document.

        Returns:
            For each text, in order, its ids and span, or the error that says why it cannot be used.
        """
        if not texts:
            return []
        batch = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [self._frame(ids, add_bos=add_bos, add_eos=add_eos) for ids in batch["input_ids"]]

    def _frame(self, ids: list[int], *, add_bos: bool, add_eos: bool) -> EncodedText | RowError:
        if not ids:
            return RowError("the text is empty")
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        begin = [bos] if add_bos and self._begins_with_bos and ids[0] != bos else []
        end = [eos] if add_eos and ids[-1] != eos else []
        framed = (*begin, *ids, *end)
        return framed, ((0, len(framed)),)
