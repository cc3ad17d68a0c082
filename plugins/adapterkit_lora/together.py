"""Layers of several adapters in training, each on its own tokens of one batch, as one step of the backward pass.

Asked one after another, each would be given a slice and return a part: the gradient of every slice is as large as the whole
batch, and all of them would be summed, which takes longer than the updates themselves.

There are two ways to compute it. One after another, each product is as small as it is alone. Stacked, one product serves all, of
which a token keeps what is its own layer's: more arithmetic in fewer steps, for accelerators that wait for the next step more
than they compute.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, cast

import attrs
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .update import is_computed_in, is_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .layer import LoraLayer

__all__ = ["update_together"]

MOST_STACKED_RANK = 256
"""Beyond this total rank the stacked products of an accelerator take longer than the small ones that they spare."""


@attrs.frozen(eq=False)
class _Spans:
    """Whose tokens are where.

    Attributes:
        tokens: Where each layer's begin and end.
        ranks: Where each layer's rank begins and ends in the total rank.
        scales: What each layer's update is multiplied by.
        foreign: For stacked products, ``(tokens, total rank)``: true where a rank is not that of the token's own layer.
    """

    tokens: list[tuple[int, int]]
    ranks: list[tuple[int, int]]
    scales: list[float]
    foreign: Tensor | None


def update_together(shares: Sequence[Any], x: Tensor, y: Tensor) -> Tensor | None:
    """``y`` with each layer's update added to its own tokens; None where that is not all that the layers do.

    Args:
        shares: Layers of one site, each with where its tokens begin and end, and its own random numbers.
        x: ``(..., in_features)``.
        y: ``(..., out_features)``; overwritten where all of it was made for this call.
    """
    layers: list[LoraLayer] = [one.layer for one in shares]
    if not x.is_floating_point() or any(layer.base_layer is not None for layer in layers):
        return None
    if not torch.is_grad_enabled() or not is_computed_in(y.dtype, x):
        return None
    weight = layers[0].site.frozen_weight
    x = x.to(y.dtype)
    if any(layer.training and layer.dropout for layer in layers):
        x, weight = _dropped(shares, x), None  # both terms have inputs of their own
    in_place = weight is not None and weight.dtype == y.dtype and is_whole(y)
    made, own = ((y,), None) if in_place else ((), y)
    downs, ups = zip(*(layer.factors() for layer in layers), strict=True)
    spans = _spans(shares, [len(down) for down in downs], x)
    kind = _OneByOne if spans.foreign is None else _Stacked
    out: Tensor = kind.apply(x, own, made, weight if in_place else None, spans, *downs, *ups)  # type: ignore[no-untyped-call]
    return out


def _dropped(shares: Sequence[Any], x: Tensor) -> Tensor:
    """The input, of which each layer's dropout has taken its part."""
    flat, parts, end = x.flatten(0, -2), [], 0
    for one in shares:
        parts.append(flat[end : one.start])
        mine = flat[one.start : one.stop].view(one.count, -1, flat.shape[1])
        with one.drawn():  # in the shape that it has alone, where nothing fills a sequence up
            kept = functional.dropout(mine[:, : one.width], one.layer.dropout, one.layer.training)
        parts.append(torch.cat([kept, mine[:, one.width :]], dim=1).flatten(0, 1))
        end = one.stop
    return torch.cat([*parts, flat[end:]]).view(x.shape)


def _spans(shares: Sequence[Any], rank: Sequence[int], x: Tensor) -> _Spans:
    tokens, scales = [(one.start, one.stop) for one in shares], [one.layer.scale for one in shares]
    ranks = list(pairwise(accumulate(rank, initial=0)))
    total = ranks[-1][1]
    stacked = x.is_cuda and total <= MOST_STACKED_RANK and len(set(scales)) == 1
    return _Spans(tokens, ranks, scales, _foreign(shares[0].memo, tokens, ranks, x) if stacked else None)


def _foreign(memo: dict[Any, Tensor], tokens: list[tuple[int, int]], ranks: list[tuple[int, int]], x: Tensor) -> Tensor:
    """Which ranks are not a token's own; sites of the same ranks share it."""
    key = (__name__, *tokens, *ranks)
    if key not in memo:
        foreign = torch.ones(x.numel() // x.shape[-1], ranks[-1][1], dtype=torch.bool)
        for (start, stop), (first, last) in zip(tokens, ranks, strict=True):
            foreign[start:stop, first:last] = False
        memo[key] = foreign.to(x.device, non_blocking=True)
    return memo[key]


class _Updates(torch.autograd.Function):
    """For each span of tokens ``y + scale * x @ down.T @ up.T``; see :class:`._WholeLayer` for what ``made`` and ``weight`` are."""

    @staticmethod
    def begin(x: Tensor, y: Tensor | None, made: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """What is returned, and what goes in and comes out by token."""
        out = made[0].detach() if y is None else y.clone()
        return out, x.flatten(0, -2), out.view(-1, out.shape[-1])

    @staticmethod
    def keep(ctx: Any, weight: Tensor | None, spans: _Spans, shape: torch.Size, factors: Sequence[Tensor]) -> None:
        """Note what the backward pass needs besides tensors of this pass."""
        ctx.weight, ctx.spans, ctx.shape, ctx.dtypes = weight, spans, shape, [factor.dtype for factor in factors]

    @staticmethod
    def grad_input(ctx: Any, x: Tensor, grad: Tensor) -> Tensor | None:
        """The gradient of the input by token as far as the base's weight goes, where that is asked for here."""
        if not ctx.needs_input_grad[0]:
            return None
        return torch.zeros_like(x) if ctx.weight is None else grad @ ctx.weight

    @staticmethod
    def end(ctx: Any, grad: Tensor, grad_x: Tensor | None, grads: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """All gradients, in the order of what ``forward`` takes."""
        of_factors = [one.to(dtype) for one, dtype in zip(grads, ctx.dtypes, strict=True)]
        of_y = grad if ctx.needs_input_grad[1] else None
        return None if grad_x is None else grad_x.view(ctx.shape), of_y, None, None, None, *of_factors


class _OneByOne(_Updates):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor | None,
        made: tuple[Tensor, ...],
        weight: Tensor | None,
        spans: _Spans,
        *factors: Tensor,
    ) -> Tensor:
        out, flat_x, flat_out = _Updates.begin(x, y, made)
        here = [factor.to(x.dtype) for factor in factors]
        downs, ups = here[: len(spans.tokens)], here[len(spans.tokens) :]
        lows = []
        for (start, stop), scale, down, up in zip(spans.tokens, spans.scales, downs, ups, strict=True):
            low = functional.linear(flat_x[start:stop], down)
            flat_out[start:stop].addmm_(low, up.T, alpha=scale)
            lows.append(low)
        ctx.save_for_backward(flat_x, *lows, *here)
        _Updates.keep(ctx, weight, spans, x.shape, factors)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        count, flat = len(ctx.spans.tokens), grad.flatten(0, -2)
        lows, downs, ups = rest[:count], rest[count : 2 * count], rest[2 * count :]
        grad_x, grad_downs, grad_ups = _Updates.grad_input(ctx, x, flat), [], []
        for (start, stop), scale, low, down, up in zip(
            ctx.spans.tokens, ctx.spans.scales, lows, downs, ups, strict=True
        ):
            here = flat[start:stop]
            grad_low = functional.linear(here, up.T.contiguous()).mul_(scale)
            if grad_x is not None:
                grad_x[start:stop].addmm_(grad_low, down)
            grad_downs.append(grad_low.T @ x[start:stop])
            grad_ups.append((low.T @ here).mul_(scale).T)
        return _Updates.end(ctx, grad, grad_x, [*grad_downs, *grad_ups])


class _Stacked(_Updates):
    """What is not a token's own is replaced by zero, not multiplied by it; and no gradient is multiplied by such a zero."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor | None,
        made: tuple[Tensor, ...],
        weight: Tensor | None,
        spans: _Spans,
        *factors: Tensor,
    ) -> Tensor:
        out, flat_x, flat_out = _Updates.begin(x, y, made)
        count = len(spans.tokens)
        down = torch.cat(factors[:count]).to(x.dtype)
        up = torch.cat([factor.T for factor in factors[count:]]).to(x.dtype)
        low = functional.linear(flat_x, down).masked_fill_(cast("Tensor", spans.foreign), 0.0)
        flat_out.addmm_(low, up, alpha=spans.scales[0])
        ctx.save_for_backward(flat_x, low, down, up)
        _Updates.keep(ctx, weight, spans, x.shape, factors)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, up = ctx.saved_tensors
        flat, spans = grad.flatten(0, -2), ctx.spans
        grad_low = functional.linear(flat, up).masked_fill_(spans.foreign, 0.0).mul_(spans.scales[0])
        grad_x = _Updates.grad_input(ctx, x, flat)
        if grad_x is not None:
            grad_x.addmm_(grad_low, down)
        grad_down, grad_up = grad_low.T @ x, torch.empty_like(up)
        # of its own tokens alone: the gradient of another's may be infinite, and zero times that is no number
        for (start, stop), (first, last) in zip(spans.tokens, spans.ranks, strict=True):
            torch.mm(low[start:stop, first:last].T, flat[start:stop], out=grad_up[first:last])
        grad_down, grad_up = grad_down.to(ctx.dtypes[0]), grad_up.to(ctx.dtypes[-1]).mul_(spans.scales[0])
        grad_downs = [grad_down[first:last] for first, last in spans.ranks]
        grad_ups = [grad_up[first:last].T for first, last in spans.ranks]
        return _Updates.end(ctx, grad, grad_x, [*grad_downs, *grad_ups])
