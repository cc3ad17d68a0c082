"""Rotary positions (Su et al. 2021, arXiv 2104.09864), in the layout of Llama: the halves of a head are turned together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .available import runs_kernels

__all__ = ["rotate"]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x * cos + rotate_half(x) * sin``.

    Args:
        x: Queries or keys, ``(batch, heads, sequence, size)``.
        cos: ``(batch or 1, sequence, size)``.
        sin: The same.
    """
    out: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _turned(grad, *ctx.saved_tensors, back=True), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    if runs_kernels(x):
        from .on_gpu import rotated

        return rotated(x, cos, sin, back=back)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    first, second = (x * sin if back else x).chunk(2, dim=-1)
    if back:  # the transpose of rotate_half, after the multiplication
        return x * cos + torch.cat((second, -first), dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
