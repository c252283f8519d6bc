"""Bytes of scores over the vocabulary and of the loss on them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from component.planning.workload import Workload

NEXT_TOKEN_TASKS = ("sft", "pretrain")
#: unsloth_zoo 2026.10.9, fused_losses/cross_entropy_loss.py: bytes a score that it reckons with, and the GiB that its
#: parts may take at most. The number of parts is a multiple of four.
UNSLOTH_RECKONED_BYTES, UNSLOTH_PART_GIB = 16, 4.0
#: Bytes a score that such a part takes once it is compiled: the 16-bit scores and a little (STACK: 2048 x 4 and x 8
#: without checkpointing leave 0.5 to 0.9 GiB for the loss).
UNSLOTH_BYTES = 2.2
#: Bytes a score in parts of Liger's fused loss.
LIGER_BYTES = 10


@dataclass(frozen=True)
class LossMemory:
    """Bytes at the loss.

    Attributes:
        forward: most that scores take until the loss is known.
        backward: most they take until their gradient has reached the last decoder layer.
        largest: the largest single tensor; a free block of this size is seldom found again.
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
    if workload.task in NEXT_TOKEN_TASKS and workload.loader == "unsloth":
        part = unsloth_part_tokens(tokens, shape.vocab, shape.hidden) * shape.vocab * UNSLOTH_BYTES
        return LossMemory(part, part, part, 3 * tokens * shape.hidden * width)
    if workload.task in NEXT_TOKEN_TASKS and workload.has_liger:
        part = liger_part_tokens(tokens, shape.vocab, shape.hidden) * shape.vocab * LIGER_BYTES
        return LossMemory(part, part, part, 3 * tokens * shape.hidden * width)
    scores = tokens * shape.vocab
    hidden = tokens * shape.hidden * (4 + (workload.load_bytes if workload.is_mixed else 0) + width)
    before, after = BYTES_PER_SCORE.get(workload.task, BYTES_PER_SCORE["orpo"])
    if workload.task in REFERENCE_TASKS:
        entropy = ENTROPY_BYTES * min(tokens, ENTROPY_TOKENS) * shape.vocab
        forward = max(before * scores, 12 * scores + entropy)
    else:
        forward = (before + (width if width < 4 else 0)) * scores
    return LossMemory(forward, after * scores, 4 * scores, hidden)


#: Task -> bytes a score until the loss is known, beside the 16-bit scores, and in the backward pass; float32, as TRL's
#: losses were traced operation by operation. sft: the upcast scores and their logarithmic softmax; then that, the
#: gradient of the loss and that of the scores. dpo: scores of policy and reference, whose 16-bit ones are gone, and a
#: copy for the entropy that is logged; then scores, the gradients of the rows, and these stacked. kto: scores of each
#: side and of its answers besides, for the mean that is logged: 16 where all rows of a micro-batch are on one side, 14
#: where half are. orpo: the softmax of the chosen side's loss besides; other tasks on answers are taken to be like it.
BYTES_PER_SCORE = {
    "sft": (8, 12), "pretrain": (8, 12), "dpo": (12, 12), "orpo": (10, 14), "kto": (16, 12), "grpo": (8, 12),
}  # fmt: skip
#: Tasks that compare with a reference log the entropy of so many tokens at a time (trl.trainer.utils.
#: entropy_from_logits): logarithms, probabilities and their product in float32, beside 12 bytes for every score.
REFERENCE_TASKS, ENTROPY_TOKENS, ENTROPY_BYTES = ("dpo", "kto"), 128, 12


def unsloth_part_tokens(tokens: int, vocab: int, hidden: int) -> int:
    """Tokens in each part of Unsloth's loss."""
    room = UNSLOTH_PART_GIB - 2 * tokens * hidden / 2**30
    needed = tokens * vocab * UNSLOTH_RECKONED_BYTES / 2**30 / (room if room > 0 else UNSLOTH_PART_GIB)
    parts = 1 if needed <= 1 else math.ceil(needed / 4) * 4
    return math.ceil(tokens / min(parts, tokens))


def liger_part_tokens(tokens: int, vocab: int, hidden: int) -> int:
    """Tokens in each part of Liger's fused loss: as many times fewer as the vocabulary is wider than the model."""
    parts = math.ceil(vocab / hidden)
    return 2 ** math.ceil(math.log2(max(1, math.ceil(tokens / parts))))
