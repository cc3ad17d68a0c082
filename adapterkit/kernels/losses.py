"""Cross-entropy after a frozen head, with the gradient of what goes into the head made in the same pass.

The gradient of a token's logits is ``softmax(logits) - onehot(target)``, times whatever its loss is multiplied by afterwards. So
it can be brought back through the head while its logits are still there, and no logits are computed a second time: two products
with the head's weight instead of three. The idea is Liger's (Hsu et al. 2024, arXiv 2410.10989); tokens may have weights here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .available import runs_kernels

__all__ = ["head_losses"]


def head_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, most: int) -> Tensor:
    """The cross-entropy ``(n,)`` of ``targets`` under the logits ``hidden @ weight.T + bias``, in float32 at least.

    Args:
        hidden: ``(n, hidden_size)``.
        weight: ``(vocabulary, hidden_size)``, not trained.
        bias: ``(vocabulary,)``, not trained; or None.
        targets: ``(n,)`` token ids.
        most: How many tokens have their logits at a time.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    with torch.autocast(kind, enabled=False):  # everything is cast once, not for each part
        cast = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        losses: Tensor = _HeadLosses.apply(*cast, targets, most)  # type: ignore[no-untyped-call]
    return losses


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, most: int) -> Tensor:
        grad = torch.empty_like(hidden, memory_format=torch.contiguous_format)
        losses = []
        for part, given, out in zip(*(torch.split(one, most) for one in (hidden, targets, grad)), strict=True):
            logits = functional.linear(part, weight, bias)
            losses.append(_losses_then_gradient(logits, given))
            torch.mm(logits, weight, out=out)
        ctx.save_for_backward(grad)
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return torch.mul(grad, factor[:, None], out=torch.empty_like(grad)), None, None, None, None


def _losses_then_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """The losses ``(n,)``; ``logits`` ``(n, vocabulary)`` are overwritten with their gradient."""
    if runs_kernels(logits):
        from .on_gpu import cross_entropy_

        return cross_entropy_(logits, targets)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = wide.logsumexp(dim=-1, keepdim=True)
    losses = total.squeeze(-1) - wide.gather(-1, targets[:, None]).squeeze(-1)
    wide.sub_(total).exp_()
    wide.scatter_add_(-1, targets[:, None], wide.new_full((len(targets), 1), -1.0))
    if wide is not logits:
        logits.copy_(wide)
    return losses
