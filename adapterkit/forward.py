"""The base as an objective sees it: from a batch to logits or losses."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch.nn import functional
from torch.utils.checkpoint import noop_context_fn

from .head import HeadInParts, head_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from .contracts import Forward

__all__ = ["BaseForward"]


class BaseForward:
    """The base as an objective sees it: from a batch to logits, with whatever adapter is in force."""

    def __init__(
        self,
        model: Any,
        contexts: Callable[[], tuple[Any, Any]] = noop_context_fn,
        *,
        head_acted_on: bool = True,
    ) -> None:
        self._model = model
        self._head = HeadInParts(model, contexts, acted_on=head_acted_on)

    def __call__(self, batch: Mapping[str, Tensor], positions: Tensor | None = None) -> Tensor:
        """Logits of the batch; at ``positions`` alone where given, so that the head works for trained tokens only.

        A packed batch brings its mask and positions. A padded one needs neither: it is padded on the right, where causal
        attention never looks, and without a mask attention takes its fast path.
        """
        packed = {}
        if "segment_mask" in batch:
            packed = {"attention_mask": batch["segment_mask"], "position_ids": batch["position_ids"]}
        with head_at(self._model, positions):
            logits: Tensor = self._model(input_ids=batch["input_ids"], use_cache=False, **packed).logits
        return logits

    def token_losses(self, batch: Mapping[str, Tensor], positions: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of ``targets`` at ``positions``; see :class:`adapterkit.Forward`."""
        if self._head.wants(len(targets)):
            losses = self._head.losses(functools.partial(self, batch), positions, targets)
            if losses is not None:
                return losses
        return functional.cross_entropy(self(batch, positions).float(), targets, reduction="none")

    def trunk(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """What goes into the head, ``(batch, sequence, hidden_size)``; None for a model that changes what comes out of it."""
        everywhere = torch.ones_like(batch["input_ids"], dtype=torch.bool)
        return self._head.hidden(functools.partial(self, batch), everywhere)

    def serving(
        self, batch: Mapping[str, Tensor], hidden: Tensor, known: Callable[[Tensor, Tensor], Tensor | None]
    ) -> Forward:
        """The same, for which the pass of ``batch`` has been made already.

        Args:
            batch: The batch.
            hidden: What its pass would put into the head.
            known: Given positions and targets, their losses where these were computed already, else None.
        """
        return _Served(self, self._head, batch, hidden, known)

    def losses_of(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy ``(n,)`` of ``targets`` after hidden states ``(n, hidden_size)``."""
        return self._head.losses_of(hidden, targets)


@attrs.frozen(eq=False)
class _Served:
    """Answers for one batch from its hidden states, and for any other by a pass of its own."""

    forward: BaseForward
    head: HeadInParts
    batch: Mapping[str, Tensor]
    hidden: Tensor
    known: Callable[[Tensor, Tensor], Tensor | None]

    def __call__(self, batch: Mapping[str, Tensor], positions: Tensor | None = None) -> Tensor:
        if batch is not self.batch:
            return self.forward(batch, positions)
        return self.head.logits_of(self.hidden if positions is None else self.hidden[positions])

    def token_losses(self, batch: Mapping[str, Tensor], positions: Tensor, targets: Tensor) -> Tensor:
        """See :class:`adapterkit.Forward`."""
        if batch is not self.batch:
            return self.forward.token_losses(batch, positions, targets)
        losses = self.known(positions, targets)
        return self.head.losses_of(self.hidden[positions], targets) if losses is None else losses
