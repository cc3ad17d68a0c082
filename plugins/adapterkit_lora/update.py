"""LoRA's arithmetic: the formula, and the same with a backward pass that keeps every thin product on its fast side.

On a CPU the gradient of ``up`` as autograd asks for it, ``(out, tokens) @ (tokens, rank)``, takes ten times as long as
``(rank, tokens) @ (tokens, out)``, its transpose; and ``grad @ up`` twice as long as with ``up`` laid out by rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["formula", "is_computed_in", "is_whole", "low_rank", "update"]


def low_rank(x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``scale * up(down(x))`` in the dtype of ``x``, or of ``up`` where ``x`` holds token ids."""
    low = functional.linear(x, down.to(x.dtype)) if x.is_floating_point() else functional.embedding(x, down.T)
    return functional.linear(low * scale, up.to(low.dtype))


def formula(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``y + scale * up(down(x))`` in the dtype of ``y``, for any mixture of dtypes."""
    return y + low_rank(x, down, up, scale).to(y.dtype)


def update(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: float, *, weight: Tensor | None = None) -> Tensor:
    """The same as :func:`formula`, faster, and with one large tensor less, where there is a gradient to compute.

    Args:
        x: ``(..., in_features)``, or token ids.
        y: ``(..., out_features)``.
        down: ``(rank, in_features)``.
        up: ``(out_features, rank)``.
        scale: Such as alpha / rank.
        weight: The frozen weight that made ``y`` of ``x``, ``(out_features, in_features)``, where nothing else did and nobody
            else wants ``y``: it may be overwritten then, and the gradient of ``x`` is computed here for both.
    """
    if not (torch.is_grad_enabled() and down.requires_grad and is_computed_in(y.dtype, x)):
        return formula(x, y, down, up, scale)
    x = x.to(y.dtype)
    if weight is not None and weight.dtype == y.dtype and is_whole(y):
        out: Tensor = _WholeLayer.apply(x, (y,), weight, down, up, scale)  # type: ignore[no-untyped-call]
    else:
        out = _Update.apply(x, y, down, up, scale)  # type: ignore[no-untyped-call]
    return out


def is_computed_in(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether products with ``x`` are made in ``dtype`` here and now."""
    if torch.is_autocast_enabled(x.device.type):
        return x.is_floating_point() and dtype == torch.get_autocast_dtype(x.device.type)
    return x.dtype == dtype


def is_whole(y: Tensor) -> bool:
    """Whether ``y`` is all of what was made, laid out as made: a part of something else, such as some rows, is not ours alone."""
    base = y._base  # noqa: SLF001 - torch has no public name for it
    return y.is_contiguous() and (base is None or base.numel() == y.numel())


class _Update(torch.autograd.Function):
    """Computes in the dtype of ``x``; factors of another are cast in either pass, and their casts not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        flat, low = x.flatten(0, -2), functional.linear(x, down.to(x.dtype)).flatten(0, -2)
        ctx.save_for_backward(flat, low, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return torch.addmm(y.flatten(0, -2), low, up.to(x.dtype).T, alpha=scale).view(y.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, up = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        grad_low = functional.linear(flat, up.to(x.dtype).T.contiguous()) * ctx.scale
        grad_x = (grad_low @ down.to(x.dtype)).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return grad_x, grad, (grad_low.T @ x).to(down.dtype), ((low.T @ flat).T * ctx.scale).to(up.dtype), None


class _WholeLayer(torch.autograd.Function):
    """The backward pass of ``x @ weight.T + scale * x @ down.T @ up.T``, where a forward pass has made the first term.

    Where large tensors are read and written more slowly than they are computed, as on any accelerator, what counts is how often:
    the update is added where ``y`` is, and its part of the gradient of ``x`` where the weight's is. ``y`` comes in a tuple,
    so that autograd does not see it: its own way back to ``x`` is dropped.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, made: tuple[Tensor], weight: Tensor, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        out, flat, dtype = made[0].detach(), x.flatten(0, -2), x.dtype
        down_here, up_by_rank = down.to(dtype), (up.T * scale).to(dtype).contiguous()
        low = functional.linear(flat, down_here)
        out.view(-1, out.shape[-1]).addmm_(low, up_by_rank)
        ctx.save_for_backward(flat, low, weight, down_here, up_by_rank)
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (down.dtype, up.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, weight, down, up_by_rank = ctx.saved_tensors
        flat, (down_dtype, up_dtype) = grad.flatten(0, -2), ctx.dtypes
        grad_low, grad_x = functional.linear(flat, up_by_rank), None
        if ctx.needs_input_grad[0]:
            grad_x = (flat @ weight).addmm_(grad_low, down).view(ctx.shape)
        grad_down, grad_up = (grad_low.T @ x).to(down_dtype), (low.T @ flat).T.to(up_dtype) * ctx.scale
        return grad_x, None, None, grad_down, grad_up, None
