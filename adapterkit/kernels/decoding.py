"""The parts of one decode step: every row has one new token, its keys and values are in pages, and adapters of its own.

Attention by pages is that of vLLM (Kwon et al. 2023, arXiv 2309.06180), with the tokens of a row divided among programs as in
Flash-Decoding. How much one program takes is fixed, so a row's answer depends on no other row. Each function is written in torch
here; that is what its kernel has to equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from .available import runs_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Counters", "attend", "expand_", "gate", "norm", "project", "shrink", "store"]


class Counters:
    """Zeros by which the programs of one kernel know that they are the last; kernels of two streams must not share them."""

    def __init__(self, device: torch.device) -> None:
        self._made = [torch.zeros(1 << 14, dtype=torch.int32, device=device)]

    def at_least(self, count: int) -> Tensor:
        """As many zeros, or more; none is given up, since captured graphs may use it."""
        if len(self._made[-1]) < count:
            self._made.append(torch.zeros(2 * count, dtype=torch.int32, device=self._made[-1].device))
        return self._made[-1]


def store(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    turn: tuple[Tensor, Tensor] | None,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lengths: Tensor,
) -> Tensor:
    """Put each row's newest key and value at the end of its pages.

    Args:
        q: Queries, ``(rows, heads * size)``.
        k: Keys, ``(rows, kv_heads * size)``.
        v: Values, the same.
        turn: Cosines and sines of rotary positions, ``(rows, size)``, by which queries and keys are to be turned; or None.
        keys: ``(pages, page_size, kv_heads, size)``, written to.
        values: The same.
        table: Each row's pages, ``(rows, most pages)``.
        lengths: How many tokens each row has, the new one included, ``(rows,)``.

    Returns:
        The queries, turned if asked for, ``(rows, heads, size)``.
    """
    if runs_kernels(q):
        from . import paged_on_gpu

        return paged_on_gpu.store(q, k, v, turn, keys, values, table, lengths)
    _, page, _, size = keys.shape
    q, k, v = (one.reshape(len(one), -1, size) for one in (q, k, v))
    if turn is not None:
        q, k = (_turned(one, *turn) for one in (q, k))
    last = (lengths - 1).long()
    pages = table.long().gather(1, (last // page)[:, None])[:, 0]
    keys[pages, last % page], values[pages, last % page] = k, v
    return q


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lengths: Tensor,
    scale: float,
    most: int,
    counters: Counters,
) -> Tensor:
    """Each row's queries over all its tokens: ``softmax(q · keys * scale) · values``, ``(rows, heads * size)``.

    Args:
        q: Queries, ``(rows, heads, size)``; consecutive heads share a key-value head.
        keys: ``(pages, page_size, kv_heads, size)``.
        values: The same.
        table: Each row's pages, ``(rows, most pages)``.
        lengths: How many tokens each row has, ``(rows,)``; at least 1.
        scale: What scores are multiplied by.
        most: No row has more tokens; what a row's answer is does not depend on it.
        counters: The stream's.
    """
    if runs_kernels(q):
        from . import paged_on_gpu

        return paged_on_gpu.attend(q, keys, values, table, lengths, scale, most, counters)
    page, group = keys.shape[1], q.shape[1] // keys.shape[2]
    out = []
    for row, own, length in zip(q, table.long(), lengths.tolist(), strict=True):
        pages = own[: -(-length // page)]
        mine = (one[pages].flatten(0, 1)[:length].repeat_interleave(group, dim=1) for one in (keys, values))
        key, value = (one.to(torch.promote_types(q.dtype, torch.float32)) for one in mine)
        scores = torch.einsum("hd,nhd->hn", row.to(key.dtype), key) * scale
        out.append(torch.einsum("hn,nhd->hd", scores.softmax(-1), value).flatten())
    return torch.stack(out).to(q.dtype)


def shrink(x: Tensor, down: Tensor, weights: Tensor, rank: int, counters: Counters) -> Tensor:
    """What each row gives in its own ranks, ``(rows, sites, rank)``: zero where its weight is zero, whatever the factors are.

    Args:
        x: The input that the sites share, ``(rows, in_features)``.
        down: ``(sites, most ranks, in_features)``, of which the first ``rank`` ranks count.
        weights: ``(rows, most ranks)`` in float32.
        rank: A multiple of 16.
        counters: The stream's.
    """
    if runs_kernels(x):
        from . import decoding_on_gpu

        return decoding_on_gpu.shrink(x, down, weights, rank, counters)
    weight = weights[:, None, :rank]
    low = torch.einsum("ni,sri->nsr", x, down[:, :rank])
    return torch.where(weight != 0, low * weight, 0).to(x.dtype)


def project(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    low: Tensor | None,
    up: Tensor | None,
    counters: Counters,
) -> Tensor:
    """One to three linear layers that share an input, side by side, with their low-rank updates: ``(rows, all out_features)``.

    Args:
        x: ``(rows, in_features)``.
        weights: Each ``(out_features, in_features)``, contiguous.
        bias: ``(all out_features,)``, or None.
        low: What :func:`shrink` gives, or None.
        up: ``(most ranks, all out_features)``, or None.
        counters: The stream's.
    """
    if runs_kernels(x):
        from . import decoding_on_gpu

        return decoding_on_gpu.project(x, weights, bias, low, up, counters)
    y = torch.cat([functional.linear(x, one) for one in weights], dim=1)
    if bias is not None:
        y = y + bias
    return y if low is None or up is None else expand_(y, [len(one) for one in weights], low, up, counters)


def expand_(y: Tensor, widths: Sequence[int], low: Tensor, up: Tensor, counters: Counters) -> Tensor:
    """Add the low-rank updates of several sites to their outputs ``y``, which lie side by side: ``(rows, sum of widths)``."""
    if runs_kernels(y):
        from . import decoding_on_gpu

        return decoding_on_gpu.expand_(y, widths, low, up, counters)
    start = 0
    for site, width in enumerate(widths):
        y[:, start : start + width] += low[:, site] @ up[: low.shape[2], start : start + width]
        start += width
    return y


def gate(x: Tensor) -> Tensor:
    """``silu(first half) * second half`` of ``(rows, 2 n)``."""
    if runs_kernels(x):
        from . import decoding_on_gpu

        return decoding_on_gpu.gate(x)
    first, second = x.chunk(2, dim=1)
    return functional.silu(first) * second


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``x / sqrt(mean(x²) + epsilon) * weight`` over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    if runs_kernels(x):
        from . import decoding_on_gpu

        return decoding_on_gpu.norm(x, weight, epsilon)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype)
