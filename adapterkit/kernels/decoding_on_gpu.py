"""The kernels of a decode step but for attention, in Triton, and how each is started. Products are summed in float32.

What several programs compute parts of is put together by the last of them to be done, part after part: in one launch, and in the
same order whatever the order in which they were done. The counters by which they know are left at zero.
"""

# ruff: noqa: ANN001, ANN202, N803 - what is under @triton.jit is Triton's language, which has no such types
# ruff: noqa: ANN201, C901, PLR0912, SIM102 - and what it takes at once is one function
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .decoding import Counters

__all__ = ["FEWEST", "expand_", "gate", "is_last", "norm", "project", "shrink"]

MOST_ROWS = 64
"""Rows that one program multiplies at once."""
FEWEST = 16
"""The least size of a side that Triton multiplies."""
PART = 1024
"""Of its input, what one program shrinks."""


@triton.jit
def is_last(arrived, parts):
    """Whether all other programs that share the counter have stored their part; the counter begins anew."""
    tl.debug_barrier()
    last = tl.atomic_add(arrived, 1, sem="acq_rel") == parts - 1
    if last:
        tl.store(arrived, 0)
    tl.debug_barrier()
    return last


@triton.jit
def _shrink(
    x, down, weights, low, parts, arrived,
    rows, size, rank, part_size, splits, x_row, site_size, weights_row,
    ROWS: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """RANKS ranks of one site, for ROWS rows and a part of the input."""
    block, site, split = tl.program_id(0), tl.program_id(1), tl.program_id(2) % splits
    many = tl.program_id(2) // splits
    row = many * ROWS + tl.arange(0, ROWS)
    number, place = block * RANKS + tl.arange(0, RANKS), tl.arange(0, TILE)
    here = (row < rows)[:, None]
    factors = down + site.to(tl.int64) * site_size
    sums = tl.zeros((ROWS, RANKS), tl.float32)
    for start in range(split * part_size, tl.minimum((split + 1) * part_size, size), TILE):
        at = start + place
        inside = (at < size)[None, :]
        given = tl.load(x + row[:, None] * x_row + at[None, :], mask=here & inside, other=0.0)
        known = (number < rank)[:, None] & inside
        factor = tl.load(factors + number[:, None] * size + at[None, :], mask=known, other=0.0)
        sums = tl.dot(given, tl.trans(factor), sums, input_precision="ieee")
    place_of = (row[:, None] * tl.num_programs(1) + site) * rank + number[None, :]
    inside = here & (number < rank)[None, :]
    done = splits == 1
    if splits > 1:
        whole = rows * tl.num_programs(1) * rank
        tl.store(parts + split * whole + place_of, sums, mask=inside)
        done = is_last(arrived + (many * tl.num_programs(1) + site) * tl.num_programs(0) + block, splits)
        if done:
            sums = tl.zeros((ROWS, RANKS), tl.float32)
            for other in range(splits):
                sums += tl.load(parts + other * whole + place_of, mask=inside, other=0.0, cache_modifier=".cg")
    if done:
        weight = tl.load(weights + row[:, None] * weights_row + number[None, :], mask=inside, other=0.0)
        tl.store(low + place_of, tl.where(weight != 0.0, sums * weight, 0.0), mask=inside)


def shrink(x: Tensor, down: Tensor, weights: Tensor, rank: int, counters: Counters) -> Tensor:
    """See :func:`adapterkit.kernels.decoding.shrink`."""
    rows, (sites, _, size) = len(x), down.shape
    several, splits = _rows(rows), -(-size // PART)
    ranks, tile, stages = _ranks(rows, rank)
    blocks, many = triton.cdiv(rank, ranks), triton.cdiv(rows, several)
    low = x.new_empty(rows, sites, rank)
    parts = torch.empty(splits * low.numel() if splits > 1 else 0, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _shrink[(blocks, sites, splits * many)](
            x, down, weights, low, parts, counters.at_least(blocks * sites * many),
            rows, size, rank, PART, splits, x.stride(0), down.stride(0), weights.stride(0),
            ROWS=several, RANKS=ranks, TILE=tile * 2 // x.element_size(), num_warps=4, num_stages=stages,
        )  # fmt: skip
    return low


def _ranks(rows: int, rank: int) -> tuple[int, int, int]:
    """Ranks of a program, how much of the input at a time in 16 bits, and stages; every program reads all of its input."""
    return (32, 128, 4) if rows * rank >= 1 << 15 else (FEWEST, 256, 3)


@triton.jit
def _project(
    x, weight, second, third, bias, low, up, y, parts, arrived,
    rows, size, part_size, splits, rank, x_row, y_row, up_row, width_0, width_1, width_2,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr,
    BASE: tl.constexpr, BIAS: tl.constexpr, LOW: tl.constexpr, SITES: tl.constexpr,
):  # fmt: skip
    """COLUMNS of one site's output, for ROWS rows and a part of the input: the base's, and what the low-rank factors add."""
    block, split, many = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    site, base, first, width = 0, tl.program_id(0).to(tl.int64) * 0, 0, width_0
    if SITES > 1:
        blocks_0, blocks_1 = tl.cdiv(width_0, COLUMNS), tl.cdiv(width_1, COLUMNS)
        site = (block >= blocks_0).to(tl.int32) + (block >= blocks_0 + blocks_1).to(tl.int32)
        base = tl.where(site == 0, base, tl.where(site == 1, second, third))
        first = tl.where(site == 0, 0, tl.where(site == 1, width_0, width_0 + width_1))
        width = tl.where(site == 0, width_0, tl.where(site == 1, width_1, width_2))
        block -= tl.where(site == 0, 0, tl.where(site == 1, blocks_0, blocks_0 + blocks_1))
    base = tl.multiple_of(base, 16)
    row = many * ROWS + tl.arange(0, ROWS)
    column, place = block * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, TILE)
    here, wide = (row < rows)[:, None], (column < width)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    if BASE:
        given = x + row[:, None] * x_row + place[None, :]
        # columns past the end read the first one again: a mask on them would be looked at with every load
        own = weight + base + tl.where(wide, column, 0)[:, None].to(tl.int64) * size + place[None, :]
        for start in range(split * part_size, tl.minimum((split + 1) * part_size, size), TILE):
            inside = (start + place < size)[None, :]
            sums = tl.dot(
                tl.load(given + start, mask=here & inside, other=0.0),
                tl.trans(tl.load(own + start, mask=inside, other=0.0, eviction_policy="evict_first")),
                sums,
                input_precision="ieee",
            )
    inside = here & wide[None, :]
    goal = row[:, None].to(tl.int64) * y_row + first + column[None, :]
    if LOW:
        if split == 0:
            number = tl.arange(0, RANKS)
            for start in range(0, rank, RANKS):
                those = start + number
                known, there = here & (those < rank)[None, :], (those < rank)[:, None] & wide[None, :]
                shrunk = tl.load(low + (row[:, None] * SITES + site) * rank + those[None, :], mask=known, other=0.0)
                factors = up + those[:, None].to(tl.int64) * up_row + first + column[None, :]
                factor = tl.load(factors, mask=there, other=0.0)
                sums = tl.dot(shrunk, factor, sums, input_precision="ieee")
    if BIAS:
        if split == 0:
            sums += tl.load(bias + first + column, mask=wide, other=0.0).to(tl.float32)[None, :]
    if not BASE:
        sums += tl.load(y + goal, mask=inside, other=0.0).to(tl.float32)
    done = splits == 1
    if splits > 1:
        whole = rows * y_row
        tl.store(parts + split * whole + goal, sums, mask=inside)
        done = is_last(arrived + many * tl.num_programs(0) + tl.program_id(0), splits)
        if done:
            sums = tl.zeros((ROWS, COLUMNS), tl.float32)
            for other in range(splits):
                sums += tl.load(parts + other * whole + goal, mask=inside, other=0.0, cache_modifier=".cg")
    if done:
        tl.store(y + goal, sums, mask=inside)


def project(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, low: Tensor | None, up: Tensor | None, counters: Counters
) -> Tensor:  # fmt: skip
    """See :func:`adapterkit.kernels.decoding.project`."""
    widths = [len(one) for one in weights]
    y = x.new_empty(len(x), sum(widths))
    if len(x) <= MOST_ROWS:
        _launch(x, weights, widths, bias, low, up, y, counters)
        return y
    for weight, out in zip(
        weights, y.split(widths, dim=1), strict=True
    ):  # the weights would be read once more for others
        torch.mm(x, weight.T, out=out)
    if bias is not None:
        y += bias
    return y if low is None or up is None else expand_(y, widths, low, up, counters)


def expand_(y: Tensor, widths: Sequence[int], low: Tensor, up: Tensor, counters: Counters) -> Tensor:
    """See :func:`adapterkit.kernels.decoding.expand_`."""
    _launch(y, (), widths, None, low, up, y, counters)
    return y


def _launch(
    x: Tensor, weights: Sequence[Tensor], widths: Sequence[int], bias: Tensor | None, low: Tensor | None,
    up: Tensor | None, y: Tensor, counters: Counters,
) -> None:  # fmt: skip
    (rows, size), rank = x.shape, 0 if low is None else low.shape[2]
    several, first = _rows(rows), weights[0] if weights else y
    columns, stages, splits = _tiles(sum(widths), size, rows) if weights else (64, 4, 1)
    tile = 256 // x.element_size()
    blocks, many = sum(triton.cdiv(one, columns) for one in widths), triton.cdiv(rows, several)
    # the kernel is given one address, and how far the others are from it
    away = [(one.data_ptr() - first.data_ptr()) // one.element_size() for one in weights[1:]]
    parts = torch.empty(splits * y.numel() if splits > 1 else 0, dtype=torch.float32, device=y.device)
    with torch.cuda.device_of(y):
        _project[(blocks, splits, many)](
            x, first, *(*away, 0, 0)[:2], bias, low, up, y, parts, counters.at_least(blocks * many),
            rows, size, triton.cdiv(triton.cdiv(size, splits), tile) * tile, splits, rank,
            x.stride(0), y.stride(0), 0 if up is None else up.stride(0), *(*widths, 0, 0)[:3],
            ROWS=several, COLUMNS=columns, TILE=tile, RANKS=min(64, max(FEWEST, triton.next_power_of_2(rank))),
            BASE=bool(weights), BIAS=bias is not None, LOW=low is not None, SITES=len(widths),
            num_warps=4, num_stages=stages,
        )  # fmt: skip


def _tiles(width: int, size: int, rows: int) -> tuple[int, int, int]:
    """Columns of a program, stages and splits: the fastest on an H200 of those tried on the layers of Llama 3.1 8B."""
    if width >= 1 << 14:
        return 128, 3, 1
    if width > 1 << 12:
        return 64, 5, 1
    return 32, 6, 2 if size >= 1 << 13 and rows <= 32 else 1


@triton.jit
def _gate(x, out, size, x_row, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    a = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + row * x_row + size + at, mask=inside, other=0.0)
    silu = (a * tl.sigmoid(a)).to(b.dtype).to(tl.float32)  # rounded in between, as in the model
    tl.store(out + row * size + at, silu * b.to(tl.float32), mask=inside)


def gate(x: Tensor) -> Tensor:
    """See :func:`adapterkit.kernels.decoding.gate`."""
    size = x.shape[1] // 2
    out = x.new_empty(len(x), size)
    with torch.cuda.device_of(x):
        _gate[(len(x), triton.cdiv(size, 1024))](x, out, size, x.stride(0), BLOCK=1024)
    return out


@triton.jit
def _norm(x, weight, out, size, epsilon, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = at < size
    given = tl.load(x + row * size + at, mask=inside, other=0.0)
    wide = given.to(tl.float32)
    scaled = (wide * tl.rsqrt(tl.sum(wide * wide, axis=0) / size + epsilon)).to(given.dtype)  # rounded as in the model
    factor = tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + row * size + at, scaled.to(tl.float32) * factor.to(tl.float32), mask=inside)


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`adapterkit.kernels.decoding.norm`."""
    size = x.shape[-1]
    x = x.contiguous()
    out, block = torch.empty_like(x), triton.next_power_of_2(size)
    with torch.cuda.device_of(x):
        _norm[(x.numel() // size,)](x, weight, out, size, epsilon, BLOCK=block, num_warps=min(16, max(1, block // 512)))
    return out


def _rows(rows: int) -> int:
    return min(MOST_ROWS, max(FEWEST, int(triton.next_power_of_2(rows))))
