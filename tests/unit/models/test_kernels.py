"""The kernels of packed rows as far as a CPU goes: which is tried and why not, parts of long rows, masks in blocks.

What they compute needs a GPU: tests/gpu/test_gpu_varlen.py.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.attention.varlen import varlen_attn

from component.models import kernel_check
from component.models.flex_kernel import BLOCK, build_block_mask
from component.models.kernel_check import HeadShape, check_kernels, dense_attention, kernel_error
from component.models.varlen_kernel import (
    Segments,
    VarlenKernel,
    are_full_rows,
    find_varlen,
    parts,
    sample_mask,
    split_samples,
)

NO_COMPILER = "there is no compiler"
LENGTHS = (40, 1, 300, 127, 128, 129, 90)


def segments(lengths=LENGTHS, window=None) -> Segments:
    boundaries = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Segments(boundaries, sum(lengths), max(lengths), window)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_a_torch_without_cuda_has_no_variable_length_kernel() -> None:
    assert find_varlen() == "this build of torch has no CUDA"


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
@pytest.mark.parametrize(
    ("heads", "dtype", "reason"),
    [
        (HeadShape(4, 2, 64), "bfloat16", "this build of torch has no CUDA"),
        (HeadShape(4, 2, 64), "float32", "it computes in 16 bit, and this run in float32"),
        (HeadShape(4, 2, 20), "bfloat16", "it takes heads of a multiple of 8 up to 256, not of 20"),
        (HeadShape(4, 2, 512), "bfloat16", "it takes heads of a multiple of 8 up to 256, not of 512"),
        (HeadShape(4, 2, 64, cap=50.0), "bfloat16", "the model caps its attention scores at 50, and it cannot"),
    ],
)
def test_each_kernel_is_passed_over_with_its_reason(heads: HeadShape, dtype: str, reason: str) -> None:
    assert check_kernels(heads, dtype=dtype, device="cpu", compiler_obstacle=NO_COMPILER) == (
        f"no torch's variable-length kernel: {reason}; no flex_attention with a document mask: {NO_COMPILER}"
    )


@pytest.mark.parametrize(
    ("kernel", "refusal"),
    [
        (VarlenKernel(varlen_attn, takes_gqa_flag=True), None),
        (VarlenKernel(varlen_attn, takes_gqa_flag=True, repeats_heads=True), None),
        (VarlenKernel(varlen_attn, takes_gqa_flag=False), "same number of heads"),
    ],
)
def test_grouped_heads_are_called_as_torch_wants_them(kernel: VarlenKernel, refusal: str | None) -> None:
    """Torch's own function on tensors without content: from 2.12 on it insists on the flag."""
    query, key = (torch.empty(6, heads, 8, dtype=torch.bfloat16, device="meta") for heads in (4, 2))
    held = Segments(torch.empty(3, dtype=torch.int32, device="meta"), 6, 4, None)
    if refusal:
        with pytest.raises(ValueError, match=refusal):
            kernel(query, key, key, held, scale=None, cap=None)
    else:
        assert kernel(query, key, key, held, scale=None, cap=None).shape == (6, 4, 8)


@pytest.mark.parametrize(
    ("lengths", "are_dense"),
    [
        ([2048] * 4, True),
        ([256], True),
        ([20_001], True),
        ([2048, 2048, 2047], False),
        ([300, 300], False),
    ],
)
def test_samples_of_one_common_length_are_full_rows(lengths: list[int], are_dense: bool) -> None:
    assert are_full_rows(sum(lengths), len(lengths), max(lengths)) is are_dense


def test_rows_beyond_32_bits_are_taken_in_parts_that_end_with_samples() -> None:
    """Faults seen on a GPU: 1,120 samples of 500 tokens, 32 heads of 128; 800 of them are within the limit."""
    whole = segments((500,) * 800)
    ((boundaries, longest, part),) = parts(whole, num_heads=32, head_dim=128)
    assert boundaries is whole.boundaries and (longest, part) == (500, slice(None))
    first, second = parts(segments((500,) * 1119 + (600,)), num_heads=32, head_dim=128)
    assert (first[1], first[2]) == (500, slice(0, 417_000)) and first[0].shape == (835,)
    assert (second[1], second[2]) == (600, slice(417_000, 560_100)) and second[0][0] == 0
    assert (417_000 + 128 * 834) * 32 * 128 < 2**31 <= (417_500 + 128 * 835) * 32 * 128


def test_samples_are_split_without_loss() -> None:
    assert split_samples([0, 10, 20, 30], limit=1000) == [(0, 3)]
    assert split_samples([0, 10, 20, 30], limit=2 * (10 + 128)) == [(0, 2), (2, 3)]
    assert split_samples([0, 5000, 5010, 5020], limit=300) == [(0, 1), (1, 3)]
    assert split_samples([0, 10, 5010, 5020], limit=300) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("window", [None, 24, 200])
def test_the_blocks_of_a_mask_hold_all_that_is_seen_and_little_more(window: int | None) -> None:
    held = segments(window=window)
    length = 1024
    mask = build_block_mask(held, length)
    seen = torch.zeros(length, length, dtype=torch.bool)
    seen[: held.num_tokens, : held.num_tokens] = sample_mask(held, rows=1)[0, 0]
    needed = seen.view(length // BLOCK, BLOCK, length // BLOCK, BLOCK).any(dim=3).any(dim=1)
    given = mask.to_dense()[0, 0].bool()
    assert not (needed & ~given).any()
    whole = [
        block for start, end in pairwise(held.boundaries.tolist()) for block in range(start // BLOCK, -(-end // BLOCK))
    ]
    assert given.sum() <= needed.sum() + len(whole)


@pytest.mark.parametrize(("window", "cap"), [(None, None), (24, None), (None, 1.0), (24, 1.0)])
def test_flex_attention_with_these_blocks_is_attention_inside_samples(window: int | None, cap: float | None) -> None:
    """Its forward pass, uncompiled; a CPU has no backward pass of it."""
    from component.models.flex_kernel import _capping

    held = segments(window=window)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 1024, 16, generator=generator) for heads in (4, 2, 2))
    blocks = build_block_mask(held, 1024)
    output = flex_attention(query, key, value, score_mod=_capping(cap), block_mask=blocks, enable_gqa=True)
    kept = (tensor[:, :, : held.num_tokens] for tensor in (query, key, value))
    expected = dense_attention(*kept, sample_mask(held, rows=1), cap=cap)
    assert torch.allclose(output[:, :, : held.num_tokens].transpose(1, 2), expected, atol=1e-5)


class PerSample:
    """SDPA for each sample: an exact kernel for a CPU, or a wrong one.

    Args:
        window, cap: whether they are heeded.
        joins: the samples of a row are one.
    """

    def __init__(self, *, window: bool = True, cap: bool = True, joins: bool = False) -> None:
        self.heeds_window, self.heeds_cap, self.joins = window, cap, joins

    def __call__(self, query, key, value, held, *, scale, cap):
        ends = [0, held.num_tokens] if self.joins else held.boundaries.tolist()
        outputs = []
        for start, end in pairwise(ends):
            part = Segments(torch.tensor([0, end - start]), end - start, end - start, held.window)
            mask = sample_mask(part if self.heeds_window else replace(part, window=None), rows=1)[0]
            rows = (tensor[start:end].transpose(0, 1) for tensor in (query, key, value))
            outputs.append(dense_attention(*rows, mask, scale=scale, cap=cap if self.heeds_cap else None))
        return torch.cat(outputs)


@pytest.mark.parametrize(
    ("settings", "lowest", "highest"),
    [
        ({}, 0, 1e-6), ({"joins": True}, 0.1, 2), ({"window": False}, 0.1, 2), ({"cap": False}, 0.1, 2),
    ],
)  # fmt: skip
def test_the_check_tells_a_right_kernel_from_wrong_ones(settings, lowest, highest) -> None:
    heads = HeadShape(4, 2, 16, window=4096, cap=1.0)
    error = kernel_error(PerSample(**settings), heads, dtype=torch.float32, device="cpu")
    assert lowest <= error <= highest
    error = kernel_error(PerSample(**settings), heads, dtype=torch.bfloat16, device="cpu")
    assert max(lowest, 1e-3) <= error <= max(highest, 0.03)


def test_a_wrong_kernel_is_told_with_what_it_is_held_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64, which bfloat16 and float32 are both far from."""
    wrong = [("a kernel", PerSample(joins=True)), ("another", "it is not here")]
    monkeypatch.setattr(kernel_check, "_candidates", lambda *_: iter(wrong))
    told = check_kernels(HeadShape(4, 2, 16), dtype="float32", device="cpu")
    pattern = r"no a kernel: it is off by [0-9.]+ from float64, which rounding does not explain; no another: it is not"
    assert isinstance(told, str) and re.match(pattern, told)


def test_dense_attention_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 9, 16, generator=generator) for heads in (4, 2, 2))
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    assert torch.allclose(dense_attention(query, key, value, mask, scale=0.3), expected.transpose(1, 2), atol=1e-6)
    capped = dense_attention(query, key, value, mask, scale=0.3, cap=1e6)
    assert torch.allclose(capped, expected.transpose(1, 2), atol=1e-4)
    assert not torch.allclose(dense_attention(query, key, value, mask, scale=0.3, cap=0.5), capped, atol=1e-2)
