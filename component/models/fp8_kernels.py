"""Triton kernels of `component.models.fp8_linear`: what it does in several passes over the memory, in one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Numbers that one thread holds, and the most warps of a program.
NUMBERS_PER_THREAD, MAX_WARPS = 32, 32
#: Side of the squares that are transposed.
TILE = 128


@triton.jit
def _round_rows(x, factors, values, scales, width, largest, smallest, has_factors: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < width
    numbers = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if has_factors:
        numbers *= tl.load(factors + columns, mask=inside, other=0.0)
    scale = tl.maximum(tl.max(tl.abs(numbers), axis=0), smallest) / largest
    quotients = numbers / scale
    # What is no number stays none: minimum and maximum would drop it.
    rounded = tl.where(quotients == quotients, tl.minimum(tl.maximum(quotients, -largest), largest), quotients)
    tl.store(values + row * width + columns, rounded.to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


@triton.jit
def _transpose(source, target, rows, columns, tile: tl.constexpr):
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    square = tl.load(source + row[:, None].to(tl.int64) * columns + column[None, :], mask=inside)
    into = target + column[:, None].to(tl.int64) * rows + row[None, :]
    tl.store(into, tl.trans(square), mask=(column[:, None] < columns) & (row[None, :] < rows))


def round_rows(x: Tensor, factors: Tensor | None, *, largest: float, smallest: float) -> tuple[Tensor, Tensor]:
    """As `component.models.fp8_linear.quantize_rows`, of a contiguous matrix."""
    rows, width = x.shape
    values = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = x.new_empty(rows, 1, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    warps = min(MAX_WARPS, max(1, block // (32 * NUMBERS_PER_THREAD)))
    with torch.cuda.device(x.device):
        _round_rows[(rows,)](
            x, x if factors is None else factors, values, scales, width, largest, smallest,
            has_factors=factors is not None, block=block, num_warps=warps,
        )  # fmt: skip
    return values, scales


def transpose(values: Tensor) -> Tensor:
    """A transposed copy of a contiguous matrix of bytes."""
    rows, columns = values.shape
    result = values.new_empty(columns, rows)
    with torch.cuda.device(values.device):
        _transpose[(triton.cdiv(rows, TILE), triton.cdiv(columns, TILE))](values, result, rows, columns, tile=TILE)
    return result
