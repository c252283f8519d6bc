"""Bytes of scores over the vocabulary and of the loss on them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from component.config.keys import LANGUAGE_MODEL_TASKS
from component.planning.workload import Workload

#: unsloth_zoo 2026.10.9, fused_losses/fused_linear.py. A part of its loss has one buffer of float32 scores, which their
#: gradient overwrites: of fewest and most tokens, by the size of the vocabulary, within a budget. From so many tokens
#: on the vocabulary is cut as well, into tiles of so many bytes, and gradients of a tile's tokens add up in float32.
UNSLOTH_BYTES, UNSLOTH_PART_BYTES = 4, 2 * 2**30
UNSLOTH_FEWEST_SCORES, UNSLOTH_FEWEST, UNSLOTH_MOST = 512 * 151936, 512, 4096
UNSLOTH_TILED_FROM, UNSLOTH_TILE_BYTES, UNSLOTH_TILE_TOKENS = 4096, 256 * 2**20, 4096
#: Bytes a score in parts of Liger's fused loss.
LIGER_BYTES = 10


@dataclass(frozen=True)
class LossMemory:
    """Bytes at the loss.

    Attributes:
        forward: most that scores take until the loss is known.
        backward: most they take until their gradient has reached the last decoder layer.
        largest: the largest single tensor, where its size is another in each batch; a free block of this size is seldom
            found again.
        hidden: last hidden states and what final norm and head keep of them.
    """

    forward: float
    backward: float
    largest: float
    hidden: float


def loss_memory(workload: Workload) -> LossMemory:
    """What the loss of one micro-batch takes."""
    shape, width, tokens = workload.shape, workload.compute_bytes, workload.tokens
    if workload.task == "reward":
        return LossMemory(0, 0, 0, 2 * tokens * shape.hidden * 4)
    if workload.task in LANGUAGE_MODEL_TASKS and workload.loader == "unsloth":
        part = unsloth_part_bytes(tokens, shape.vocab, shape.hidden, workload.loss_chunk_tokens)
        # What the last layer gives, its norm, and the gradient of that; the rows of a part twice.
        hidden = (3 * tokens + 2 * min(tokens, UNSLOTH_TILE_TOKENS)) * shape.hidden * width
        return LossMemory(part, part, 0, hidden)
    if workload.scores_in_parts and not workload.offloads_head:
        # Parts of the same file, of answers alone; tokens of prompts count as if they were such.
        part = unsloth_part_bytes(tokens, shape.vocab, shape.hidden)
        return LossMemory(part, part, 0, 3 * tokens * shape.hidden * width)
    if workload.task in LANGUAGE_MODEL_TASKS and workload.has_liger:
        part = liger_part_tokens(tokens, shape.vocab, shape.hidden) * shape.vocab * LIGER_BYTES
        return LossMemory(part, part, part, 3 * tokens * shape.hidden * width)
    if workload.task in LANGUAGE_MODEL_TASKS and workload.loss_chunk_tokens is not None:
        return _chunked(workload, workload.loss_chunk_tokens)
    scores = tokens * shape.vocab
    hidden = tokens * shape.hidden * (4 + (workload.load_bytes if workload.is_mixed else 0) + width)
    before, after = BYTES_PER_SCORE.get(workload.task, BYTES_PER_SCORE["orpo"])
    if workload.task in REFERENCE_TASKS:
        entropy = ENTROPY_BYTES * min(tokens, ENTROPY_TOKENS) * shape.vocab
        forward = max(before * scores, 12 * scores + entropy)
    else:
        forward = (before + (width if width < 4 else 0)) * scores
    return LossMemory(forward, after * scores, LARGEST_PER_SCORE.get(workload.task, 4) * scores, hidden)


def _chunked(workload: Workload, limit: int) -> LossMemory:
    """component/trainers/chunked_loss.py: float32 scores of a part, which their gradient overwrites, and a 16-bit copy.

    Beside the hidden states are a copy in float32, that accelerate makes of what a model returns, the rows that are
    learned, and their gradients. A head that is trained has its gradient in float32 from there on.
    """
    shape, width, tokens = workload.shape, workload.compute_bytes, workload.tokens
    part = min(tokens, limit) * shape.vocab * (4 + (width if width < 4 else 0))
    is_trained = workload.adapter is None and workload.trained_layers is None
    head = shape.embedding * 4 if is_trained else 0
    hidden = tokens * shape.hidden * (4 + workload.load_bytes + 2 * width)
    return LossMemory(part + 2 * head, 2 * head, 0, hidden)


#: Task -> bytes a score until the loss is known, beside the 16-bit scores, and in the backward pass; float32, as TRL's
#: losses were traced operation by operation. sft: the upcast scores and their logarithmic softmax; then that, the
#: gradient of the loss and that of the scores. dpo: scores of policy and reference, whose 16-bit ones are gone, and a
#: copy for the entropy that is logged; then scores, the gradients of the rows, and these stacked. kto: scores of each
#: side and of its answers besides, for the mean that is logged: 16 where all rows of a micro-batch are on one side, 14
#: where half are. orpo: the softmax of the chosen side's loss besides; other tasks on answers are taken to be like it.
BYTES_PER_SCORE = {
    "sft": (8, 12), "pretrain": (8, 12), "dpo": (12, 12), "orpo": (10, 14), "kto": (16, 12), "grpo": (8, 12),
}  # fmt: skip
#: Task -> bytes a score of its largest tensor, where that is not float32 scores of all rows. kto's are of a side each,
#: and share blocks: measured.
LARGEST_PER_SCORE = {"kto": 1}
#: Tasks that compare with a reference log the entropy of so many tokens at a time (trl.trainer.utils.
#: entropy_from_logits): logarithms, probabilities and their product in float32, beside 12 bytes for every score.
REFERENCE_TASKS, ENTROPY_TOKENS, ENTROPY_BYTES = ("dpo", "kto"), 128, 12


def unsloth_part_bytes(tokens: int, vocab: int, hidden: int, limit: int | None = None) -> float:
    """Bytes that one part of Unsloth's loss takes.

    Args:
        limit: tokens that may have scores at once; None for its own.
    """
    budget = UNSLOTH_PART_BYTES if limit is None else limit * vocab * UNSLOTH_BYTES
    if tokens >= UNSLOTH_TILED_FROM:
        tile = min(UNSLOTH_TILE_BYTES, budget)
        return tile + min(tokens, UNSLOTH_TILE_TOKENS) * hidden * 4
    fewest = min(max(_power_of_two(UNSLOTH_FEWEST_SCORES / vocab), UNSLOTH_FEWEST), UNSLOTH_MOST)
    rows = min(max(_power_of_two(tokens * hidden / vocab), fewest), UNSLOTH_MOST, tokens)
    return min(rows * vocab * UNSLOTH_BYTES, budget)


def _power_of_two(number: float) -> int:
    """The largest power of two that is not above a number of at least 1."""
    return 2 ** math.floor(math.log2(max(number, 1)))


def liger_part_tokens(tokens: int, vocab: int, hidden: int) -> int:
    """Tokens in each part of Liger's fused loss: as many times fewer as the vocabulary is wider than the model."""
    parts = math.ceil(vocab / hidden)
    return 2 ** math.ceil(math.log2(max(1, math.ceil(tokens / parts))))
