"""The sizes of a model that memory and time depend on, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from component.config.errors import UserError
from component.config.nodes import excerpt, spell

#: Of a size or a number that is planned with; their products stay well within a float.
MAX_SIZE = 10**9
#: Families whose layers are as `read_shape` builds them -> whether query, key and value, and gate and up, are each one
#: linear layer. tests/unit/planning/test_shape.py holds the parameters of each to those of transformers' own model.
FUSED_PROJECTIONS: Mapping[str, tuple[bool, bool]] = {
    **dict.fromkeys(
        (
            "llama", "mistral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "olmo3",
            "mixtral", "qwen3_moe", "gpt_oss",
        ),
        (False, False),
    ),
    "phi3": (True, True),
    "glm4": (False, True),
}  # fmt: skip
#: Families with four norms in a layer instead of two.
FOUR_NORMS = ("gemma2", "gemma3_text", "glm4")
#: Families that normalise each head of query and key.
HEAD_NORMS = ("qwen3", "qwen3_moe", "gemma3_text")
#: Families that Unsloth has kernels and a loader of its own for: norms keep what they give instead of their input, and
#: weights that stay in main memory are read there.
UNSLOTH_FAMILIES = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
#: Families whose input embeddings are the output head unless config.json says otherwise.
TIED = ("gemma", "gemma2", "gemma3_text", "smollm3")


@dataclass(frozen=True)
class Linear:
    """A linear layer that each decoder layer has once: its last name, and features in and out."""

    name: str
    features_in: int
    features_out: int

    @property
    def num_weights(self) -> int:
        """Elements of its weight."""
        return self.features_in * self.features_out


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder.

    Attributes:
        linears: of one decoder layer, without experts.
        intermediate: width of the MLP; of one expert where there are experts.
        query_width, key_width: features of all query heads, and of all key (or value) heads.
        experts_per_layer: parameters of a layer's experts and router; they are neither quantized nor adapted.
        active_experts_per_layer: of those, what one token passes through.
        norms_per_layer: parameters of norms and biases in a layer.
        max_positions: of a sample, by config.json; 0 where it does not say.
        is_tied: the output head is the input embeddings.
    """

    model_type: str
    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    head_dim: int
    query_width: int
    key_width: int
    vocab: int
    linears: tuple[Linear, ...]
    is_tied: bool
    experts_per_layer: int = 0
    active_experts_per_layer: int = 0
    num_active_experts: int = 0
    norms_per_layer: int = 0
    max_positions: int = 0

    @property
    def linear_per_layer(self) -> int:
        """Weights of the linear layers of one decoder layer."""
        return sum(linear.num_weights for linear in self.linears)

    @property
    def embedding(self) -> int:
        """Parameters of the input embeddings."""
        return self.vocab * self.hidden

    @property
    def head(self) -> int:
        """Parameters of the output head that are not the embeddings' own."""
        return 0 if self.is_tied else self.embedding

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        layer = self.linear_per_layer + self.experts_per_layer + self.norms_per_layer
        return self.embedding + self.head + self.num_layers * layer + self.hidden

    @property
    def mlp_width(self) -> int:
        """Features between the MLP's matrices that one token passes through."""
        return self.intermediate * max(1, self.num_active_experts)


def read_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """Read a config.json; None for a family whose layers are built otherwise, or where a size is not given.

    Of a model that sees or hears, None too: what its towers take is not known here.

    Raises:
        UserError: a size is no positive whole number.
    """
    family = str(config.get("model_type"))
    if family not in FUSED_PROJECTIONS:
        return None
    try:
        return _build(family, config)
    except (KeyError, TypeError):
        return None


def missing_size(config: Mapping[str, Any]) -> str | None:
    """The name of a size that is needed and not given, of a family whose layers are known; None where none is."""
    family = str(config.get("model_type"))
    if family in FUSED_PROJECTIONS:
        try:
            _build(family, config)
        except (KeyError, TypeError) as error:
            return str(error.args[0])
    return None


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A size; the default, where there is one, for one that is not given, null or 0."""
    value = config[name] if default is None else config.get(name) or default
    if value is None or isinstance(value, list | dict):
        raise TypeError(name)
    if isinstance(value, bool) or not isinstance(value, int) or not (1 <= value <= MAX_SIZE or value == default):
        raise UserError(
            f"model_name_or_path: config.json: {name} is {excerpt(spell(value))}; it must be a positive whole number "
            f"up to {MAX_SIZE:,}"
        )
    return value


def _build(family: str, config: Mapping[str, Any]) -> ModelShape:
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    head_dim = _size(config, "head_dim", max(1, hidden // heads))
    queries, keys = heads * head_dim, _size(config, "num_key_value_heads", heads) * head_dim
    experts = _size(config, "num_experts", 0) or _size(config, "num_local_experts", 0)
    width = _size(config, "moe_intermediate_size", 0) if family == "qwen3_moe" else 0
    width = width or _size(config, "intermediate_size")
    linears = (*_attention(family, hidden, queries, keys), *(() if experts else _mlp(family, hidden, width)))
    active = _size(config, "num_experts_per_tok", 0) if experts else 0
    # gpt-oss has biases in each expert and its router.
    one_expert = 3 * hidden * width + (2 * width + hidden if family == "gpt_oss" else 0)
    router = experts * (hidden + (1 if family == "gpt_oss" else 0))
    return ModelShape(
        model_type=family,
        hidden=hidden,
        intermediate=width,
        num_layers=_size(config, "num_hidden_layers"),
        num_heads=heads,
        head_dim=head_dim,
        query_width=queries,
        key_width=keys,
        vocab=_size(config, "vocab_size"),
        linears=linears,
        is_tied=bool(config.get("tie_word_embeddings", family in TIED)),
        experts_per_layer=experts * one_expert + router if experts else 0,
        active_experts_per_layer=active * one_expert + router if experts else 0,
        num_active_experts=active,
        norms_per_layer=_norms(family, config, hidden, queries, keys, head_dim),
        max_positions=_size(config, "max_position_embeddings", 0),
    )


def _attention(family: str, hidden: int, queries: int, keys: int) -> tuple[Linear, ...]:
    output = Linear("o_proj", queries, hidden)
    if FUSED_PROJECTIONS[family][0]:
        return Linear("qkv_proj", hidden, queries + 2 * keys), output
    return Linear("q_proj", hidden, queries), Linear("k_proj", hidden, keys), Linear("v_proj", hidden, keys), output


def _mlp(family: str, hidden: int, width: int) -> tuple[Linear, ...]:
    down = Linear("down_proj", width, hidden)
    if FUSED_PROJECTIONS[family][1]:
        return Linear("gate_up_proj", hidden, 2 * width), down
    return Linear("gate_proj", hidden, width), Linear("up_proj", hidden, width), down


def _norms(family: str, config: Mapping[str, Any], hidden: int, queries: int, keys: int, head_dim: int) -> int:
    norms = (4 if family in FOUR_NORMS else 2) * hidden
    if family in HEAD_NORMS:
        norms += 2 * head_dim
    if family == "olmo3":
        norms += queries + keys
    if family == "qwen2" or (family == "gpt_oss" and config.get("attention_bias", True)):
        norms += queries + 2 * keys
    elif config.get("attention_bias"):
        norms += queries + 2 * keys + (0 if family == "glm4" else hidden)
    if family == "gpt_oss":
        norms += hidden + queries // head_dim  # the output's bias, and a sink for each head
    return norms
