"""The loss in parts: equal to transformers' own, loss and gradients, whatever is trained and however it is called."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from component.trainers import chunked_loss
from component.trainers.chunked_loss import ChunkedCrossEntropy, ChunkedLoss, find_head, predicted_positions

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
IDS = torch.arange(24).view(2, 12) * 7 % 50
LABELS = IDS.where(torch.arange(12) % 3 != 1, -100)


def model(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **changes))


def step(network: nn.Module, labels: torch.Tensor = LABELS, **kwargs: object) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss = network(input_ids=IDS, labels=labels, use_cache=False, **kwargs).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: value.grad for name, value in network.named_parameters()}}


def install(network: nn.Module, chunk_tokens: int = 4) -> ChunkedLoss:
    loss = ChunkedLoss(network, find_head(network), chunk_tokens=chunk_tokens)
    assert loss.install() is None
    return loss


@pytest.mark.parametrize("count", [None, 40, torch.tensor(40)])
@pytest.mark.parametrize("trains_head", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradients_are_the_models_own(count: object, trains_head: bool, tied: bool) -> None:
    network = model(tie_word_embeddings=tied)
    network.lm_head.weight.requires_grad_(trains_head)
    kwargs = {} if count is None else {"num_items_in_batch": count}
    theirs = step(network, **kwargs)
    loss = install(network)
    for positions in (None, predicted_positions(LABELS)):
        loss.positions = positions
        ours = step(network, **kwargs)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7)


def test_a_bias_of_the_head_and_the_factor_of_the_sum() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((7, 5), (11, 5), (11,))]
    targets = torch.tensor([3, 0, 10, 4, 4, 9, 1])
    expected = cross_entropy(tensors[0] @ tensors[1].T + tensors[2], targets, reduction="sum") * 3
    wanted = torch.autograd.grad(expected, tensors)
    ours = ChunkedCrossEntropy.apply(*tensors, targets, torch.float32, 3) * 3
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=0)
    for one, other in zip(torch.autograd.grad(ours, tensors), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_scores_of_one_part_are_gone_when_the_next_ones_come(monkeypatch: pytest.MonkeyPatch) -> None:
    of_part, made = chunked_loss._loss_and_errors, []

    def note(scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert all(earlier() is None for earlier in made)
        made.append(weakref.ref(scores))
        return of_part(scores, targets)

    monkeypatch.setattr(chunked_loss, "_loss_and_errors", note)
    network = model(tie_word_embeddings=False)
    install(network, chunk_tokens=4)
    step(network)
    assert len(made) == 1 + -(-int((LABELS[:, 1:] != -100).sum()) // 4)  # the first is the trial of `install`


def test_sixteen_bits_are_rounded_no_more_than_by_autocast() -> None:
    def gradient(network: nn.Module) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return step(network)["model.layers.0.mlp.down_proj.weight"]

    network = model(tie_word_embeddings=False)
    exact, theirs = step(network)["model.layers.0.mlp.down_proj.weight"], gradient(network)
    install(network)
    error = (gradient(network) - exact).norm()
    assert 0 < error <= 1.1 * (theirs - exact).norm()


def test_what_is_not_learned_has_no_scores() -> None:
    """Nothing learned is a loss of 0; of one position alone the head sees one row."""
    network = model()
    install(network)
    assert step(network, torch.full_like(LABELS, -100))["loss"] == 0
    assert predicted_positions(LABELS).tolist() == [p for p in range(23) if LABELS.flatten()[p + 1] != -100 and p != 11]
    assert predicted_positions(torch.tensor([[5, -100, 3], [1, 2, -100]])).tolist() == [1, 3]


def test_without_labels_the_head_is_as_it_was() -> None:
    network = model()
    before = network(input_ids=IDS).logits
    loss = install(network)
    assert torch.equal(network(input_ids=IDS).logits, before)
    with torch.no_grad():
        network(input_ids=IDS, labels=LABELS)
    assert torch.equal(network(input_ids=IDS).logits, before)
    loss.remove()
    assert network(input_ids=IDS, labels=LABELS).logits.shape == (2, 12, 50)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (Gemma2Config(**SIZES, final_logit_softcapping=30.0), Gemma2ForCausalLM),
        (Cohere2Config(**SIZES, logit_scale=0.5), Cohere2ForCausalLM),
    ],
)
def test_a_model_that_changes_its_scores_keeps_its_loss(config: object, kind: type) -> None:
    network = kind(config)
    before = step(network)["loss"]
    loss = ChunkedLoss(network, find_head(network), chunk_tokens=4)
    assert loss.install() == "the model changes its scores between head and loss"
    assert torch.equal(step(network)["loss"], before)


def test_a_head_that_is_more_than_a_matrix_is_named() -> None:
    network = model()
    network.lm_head = nn.Sequential(network.lm_head)
    assert find_head(network) == "the output head is no plain linear layer but Sequential"
