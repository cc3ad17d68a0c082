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

__all__ = ["formula", "low_rank", "update"]


def low_rank(x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``scale * up(down(x))`` in the dtype of ``x``, or of ``up`` where ``x`` holds token ids."""
    low = functional.linear(x, down.to(x.dtype)) if x.is_floating_point() else functional.embedding(x, down.T)
    return functional.linear(low * scale, up.to(low.dtype))


def formula(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``y + scale * up(down(x))`` in the dtype of ``y``, for any mixture of dtypes."""
    return y + low_rank(x, down, up, scale).to(y.dtype)


def update(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The same as :func:`formula`, faster, and with one large tensor less, where there is a gradient to compute.

    Args:
        x: ``(..., in_features)``, or token ids.
        y: ``(..., out_features)``.
        down: ``(rank, in_features)``.
        up: ``(out_features, rank)``.
        scale: Such as alpha / rank.
    """
    plain = x.dtype == y.dtype and not torch.is_autocast_enabled(x.device.type)
    if plain and torch.is_grad_enabled() and down.requires_grad:
        out: Tensor = _Update.apply(x, y, down, up, scale)  # type: ignore[no-untyped-call]
        return out
    return formula(x, y, down, up, scale)


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
