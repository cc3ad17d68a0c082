"""``silu(gate) * up``, between the two halves of a gated MLP (Shazeer 2020, arXiv 2002.05202)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .available import runs_kernels

__all__ = ["silu_mul"]


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``, of which nothing but the two inputs is kept for the backward pass."""
    out: Tensor = _SiluMul.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


class _SiluMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        if runs_kernels(gate):
            from .on_gpu import silu_mul_forward

            return silu_mul_forward(gate, up)
        return functional.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        if runs_kernels(gate):
            from .on_gpu import silu_mul_backward

            return silu_mul_backward(grad, gate, up)
        share = torch.sigmoid(gate)
        silu = gate * share
        return grad * up * (share + silu * (1.0 - share)), grad * silu
