"""What of a config decides memory and time, in one value: the other modules of planning read nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from component.config.keys import LANGUAGE_MODEL_TASKS
from component.planning.shape import Linear, ModelShape
from component.registry import TASK_ROW_KINDS

#: Kind of rows -> answers in each; all of them go through the model at once.
ANSWERS_PER_ROW = {"preference": 2}
#: max_seq_length from which on Unsloth keeps what it recomputes from in main memory (unsloth 2026.10.9,
#: models/_utils.py, apply_unsloth_gradient_checkpointing). A run with 511 takes more than one with 512, by an input of
#: each layer.
OFFLOAD_TOKENS = 512


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: float32 matrices on some of the linear layers.

    Attributes:
        targets: last names of the layers that get it.
        num_layers: decoder layers that it is on.
        trained_beside: parameters that are trained beside it: of modules in full, and rows of new tokens.
        new_rows: of embed_tokens and lm_head, those whose rows of new tokens are trained beside it.
    """

    rank: int
    targets: frozenset[str]
    num_layers: int
    trained_beside: int = 0
    new_rows: frozenset[str] = frozenset()

    def reaches(self, linear: Linear) -> bool:
        """Whether a linear layer gets it."""
        return linear.name in self.targets


@dataclass(frozen=True)
class Workload:
    """One micro-batch of a run on one device.

    Attributes:
        loader: "unsloth", or "vanilla" for all others.
        quantization: of the frozen linear layers; None for 16 and 32 bit.
        adapter: None where the model itself is trained.
        trained_layers: decoder layers that full training trains; None for all of the model.
        load_bytes: a number of the weights that are not quantized, and of what one decoder layer hands to the next.
        compute_bytes: a number that matrix products work on.
        checkpointing: "offload" recomputes and keeps what it starts from in main memory.
        attention: implementation, by the config's names.
        is_padded: unpacked rows of unequal length, which come with a mask.
        rows: of a micro-batch; row_tokens: of the longest, with its padding.
        gradients_wait: those of earlier micro-batches are there while the next one runs forward.
        reference: how a task gets the log-probabilities that it compares with.
        eval_rows: of an evaluation batch; 0 without evaluation.
        offloads_embedding: input embeddings are in main memory.
        offloads_head: so is the output head, and a copy of it is there while scores are made.
        has_full_rows: a packed row may be one sample, which attention takes as a row that is not packed.
        moves_offloaded: both are on the device while the model is loaded, and moved afterwards.
        mlp_tile_tokens: that go through an MLP at once; None for all.
        loss_chunk_tokens: that have scores at once in the loss; None for all of them, or as many as Unsloth takes.
        scores_in_parts: Unsloth's trainer of a preference task scores answers part by part.
        sample_tokens: mean length of the samples in a packed row; 0 where it is not known.
        learned_share: of the tokens, where the loss makes scores of the learned ones alone; 1 where it is not known.
        skipped_layers: decoder layers that keep their activations although others recompute.
        is_dequantized: the frozen 4-bit base was made 16-bit once, after loading. Its layers stay those of 4 bit to
            PEFT, whose adapters take the input as it is; beside 16-bit layers each casts a float32 copy of its own.
        has_fused_adapters: layers and adapters are computed together (`fused_lora`).
        grows_segments: free blocks between others are not lost, as torch's segments grow.
        keeps_norm_outputs: norms keep what they give, which projections keep too, and not their input.
    """

    shape: ModelShape
    task: str
    loader: Literal["vanilla", "unsloth"]
    quantization: Literal["nf4", "fp4", "int8", "fp8"] | None
    double_quantization: bool
    adapter: Adapter | None
    trained_layers: int | None
    load_bytes: int
    compute_bytes: int
    checkpointing: Literal["none", "recompute", "offload"]
    attention: str
    is_packed: bool
    is_padded: bool
    has_liger: bool
    optimizer: str
    rows: int
    row_tokens: int
    gradients_wait: bool
    reference: Literal["none", "adapter off", "second model", "computed before"] = "none"
    eval_rows: int = 0
    sample_tokens: float = 0.0
    learned_share: float = 1.0
    skipped_layers: int = 0
    is_dequantized: bool = False
    has_fused_adapters: bool = False
    keeps_norm_outputs: bool = False
    offloads_embedding: bool = False
    offloads_head: bool = False
    has_full_rows: bool = False
    moves_offloaded: bool = False
    mlp_tile_tokens: int | None = None
    loss_chunk_tokens: int | None = None
    scores_in_parts: bool = False
    grows_segments: bool = True

    @property
    def sequences(self) -> int:
        """Sequences that go through the model at once; a packed micro-batch is one row."""
        return self.rows * ANSWERS_PER_ROW.get(TASK_ROW_KINDS.get(self.task, ""), 1)

    @property
    def tokens(self) -> int:
        """Tokens that go through the model at once, padding included."""
        return self.sequences * self.row_tokens

    @property
    def scores_learned_alone(self) -> bool:
        """Whether the loss leaves out tokens that are not learned: Unsloth's, and ours in parts."""
        is_ours = self.loss_chunk_tokens is not None and not self.has_liger
        return self.task in LANGUAGE_MODEL_TASKS and (self.loader == "unsloth" or is_ours)

    @property
    def num_trained_layers(self) -> int:
        """Decoder layers through which gradients flow."""
        return self.shape.num_layers if self.trained_layers is None else self.trained_layers

    @property
    def recomputed_layers(self) -> int:
        """Decoder layers that compute their activations a second time in the backward pass."""
        return 0 if self.checkpointing == "none" else max(0, self.num_trained_layers - self.skipped_layers)

    @property
    def has_16bit_layers(self) -> bool:
        """Whether linear layers are multiplied as they lie on the device."""
        return self.quantization is None or self.is_dequantized

    @property
    def is_mixed(self) -> bool:
        """Whether float32 weights are computed with in 16 bit, of which autocast makes copies."""
        return self.load_bytes > self.compute_bytes
