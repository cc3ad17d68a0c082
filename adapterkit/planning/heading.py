"""The losses of many tokens in a rehearsal: one operation stands in for the hundreds of parts that a run makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapterkit.forward import BaseForward
from adapterkit.head import MOST_LOGITS, PART, TIMES_ON_GPU

from .standins import METER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RehearsedForward"]


class RehearsedForward(BaseForward):
    """The run's own, but for the losses of many tokens after a head that nothing acts on.

    Args:
        model: The transformers model.
        contexts: What :func:`torch.utils.checkpoint.checkpoint` takes as ``context_fn``.
        on_gpu: Whether parts are as large as on a GPU.
    """

    def __init__(self, model: Any, contexts: Callable[[], tuple[Any, Any]], *, on_gpu: bool) -> None:
        super().__init__(model, contexts, head_acted_on=False)
        self._weight, self._times = model.get_output_embeddings().weight, TIMES_ON_GPU if on_gpu else 1

    def token_losses(self, batch: Mapping[str, Tensor], positions: Tensor, targets: Tensor) -> Tensor:
        """Losses, ``(n,)``."""
        vocabulary = len(self._weight)
        hidden = self.trunk(batch) if len(targets) * vocabulary > MOST_LOGITS else None
        if hidden is None:
            return super().token_losses(batch, positions, targets)
        most = min(len(targets), PART * self._times // vocabulary)
        losses: Tensor = _Losses.apply(hidden[positions], self._weight, most)  # type: ignore[no-untyped-call]
        return losses


class _Losses(torch.autograd.Function):
    """As in :func:`adapterkit.kernels.head_losses`: the gradient of what goes in is made while a part's logits are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, most: int) -> Tensor:
        grad = torch.empty_like(hidden)
        logits = hidden.new_empty(most, len(weight))
        parts = -(-len(hidden) // most)
        flops = 2 * hidden.numel() * len(weight)
        for _ in range(2):  # there and back
            METER.get().charge(flops, parts * (weight.nbytes + logits.nbytes) + hidden.nbytes, launches=parts)
        METER.get().charge(0, 3 * parts * logits.nbytes, launches=2 * parts)
        ctx.save_for_backward(grad)
        del logits
        return hidden.new_empty(len(hidden), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grads[0][:, None].to(ctx.saved_tensors[0].dtype), None, None
