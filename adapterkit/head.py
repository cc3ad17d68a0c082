"""The head, which makes logits of hidden states: at some positions only, and in parts where all logits at once would be large."""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .kernels import head_losses
from .sites import frozen_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Contexts = Callable[[], tuple[Any, Any]]

__all__ = ["MOST_LOGITS", "HeadInParts", "head_at"]

logger = logging.getLogger("adapterkit")

POSITIONS: ContextVar[Tensor | None] = ContextVar("adapterkit_positions", default=None)
"""Where this thread or task wants logits."""
MOST_LOGITS = 2**25
"""So many logits are computed at once. In float32, and again as log-probabilities and as gradients, they take half a GiB; below
that nothing is won by parts, and what is computed twice for them is lost."""
PART = 2**24
"""How many logits a part has: 130 tokens of a vocabulary of 128,256 still fill a product of matrices."""
TIMES_ON_GPU = 4
"""Where the gradient takes the place of the logits, in half precision, a part may have more of them: the head's weight is read
for each part, and reading it takes as long as computing with 256 tokens."""
TRIED = 4
"""At how many positions it is tried whether the head's output is the model's."""


@contextlib.contextmanager
def head_at(model: Any, positions: Tensor | None) -> Iterator[None]:
    """Within this block, the head gets the hidden states at ``positions`` only: ``(batch, sequence)`` of booleans."""
    if positions is None:
        yield
        return
    with _at_head(model, positions, lambda hidden: at(hidden, positions)):
        yield


def at(hidden: Tensor, positions: Tensor) -> Tensor:
    """``hidden`` at ``positions``; those of a prefix, which come first, have no hidden states and are never asked for."""
    return hidden[positions[:, positions.shape[1] - hidden.shape[1] :]]


@contextlib.contextmanager
def _at_head(
    model: Any,
    positions: Tensor,
    before: Callable[[Tensor], Tensor],
    after: Callable[[Tensor], None] = lambda _: None,
) -> Iterator[None]:
    """Within this block, the head works on ``before(its input)``, and ``after`` is given its output."""

    # the head is shared: a forward of another thread or task passes by untouched
    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ARG001
        return (before(inputs[0]),) if POSITIONS.get() is positions else None

    def take(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        if POSITIONS.get() is positions:
            after(output)

    head, token = model.get_output_embeddings(), POSITIONS.set(positions)
    handles = [head.register_forward_pre_hook(select), head.register_forward_hook(take)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        POSITIONS.reset(token)


@attrs.define(eq=False)
class _Seen:
    """What went into the head, ``(n, hidden_size)``, and what it made of the first of it."""

    hidden: Tensor | None = None
    output: Tensor | None = None


class HeadInParts:
    """Losses of tokens, of which a part has its logits at a time; the backward pass computes them again.

    Under a head that nothing acts on, the gradient is made while the logits are there, and nothing is computed again.

    That holds for a model whose logits are what its head returns. Some cap or scale them afterwards (Gemma 2, Granite,
    Cohere): whether this one does is tried in the first batch, not assumed.

    Args:
        model: The transformers model.
        contexts: What :func:`torch.utils.checkpoint.checkpoint` takes as ``context_fn``.
        acted_on: Whether an adapter may act at the head.
    """

    def __init__(self, model: Any, contexts: Contexts, *, acted_on: bool) -> None:
        self._model, self._contexts, self._acted_on = model, contexts, acted_on
        self._vocabulary: int = model.config.get_text_config().vocab_size
        self._fits: bool | None = None

    def wants(self, tokens: int) -> bool:
        """Whether so many tokens are worth parts."""
        return self._fits is not False and tokens * self._vocabulary > MOST_LOGITS

    def losses(self, forward: Callable[[], Tensor], positions: Tensor, targets: Tensor) -> Tensor | None:
        """The cross-entropy of ``targets`` at ``positions`` in the pass ``forward``; None where this model needs all logits."""
        hidden = self._before_head(forward, positions, lambda whole: at(whole, positions))
        if self._fits is False:
            logger.warning(
                "this model changes its logits after its head: %.1f GiB of them are computed at once",
                len(targets) * self._vocabulary * 4 / 2**30,
            )
            return None
        return self.losses_of(hidden, targets)

    def hidden(self, forward: Callable[[], Tensor], positions: Tensor) -> Tensor | None:
        """What goes into the head in the pass ``forward``; None for a model whose logits are not what its head returns.

        Args:
            forward: Runs the model.
            positions: ``(batch, sequence)`` of booleans, all true.

        Returns:
            ``(batch, sequence, hidden_size)``.
        """
        if self._fits is False:
            return None
        whole = self._before_head(forward, positions, lambda whole: whole)
        return whole if self._fits else None

    def logits_of(self, hidden: Tensor) -> Tensor:
        """``(n, vocabulary)`` of hidden states ``(n, hidden_size)``."""
        logits: Tensor = self._model.get_output_embeddings()(hidden)
        return logits

    def losses_of(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy ``(n,)`` of ``targets`` after hidden states ``(n, hidden_size)``, in parts where that is worth it."""
        if not self.wants(len(targets)):
            return self._logits_and_losses(hidden, targets)
        head = self._model.get_output_embeddings()
        weight = None if self._acted_on else frozen_weight(head)
        if weight is None or not (torch.is_grad_enabled() and hidden.requires_grad):
            return self._in_parts(hidden, targets)
        return head_losses(hidden, weight, head.bias, targets, self._tokens(TIMES_ON_GPU if hidden.is_cuda else 1))

    def _tokens(self, times: int = 1) -> int:
        """How many tokens a part has; many are a multiple of what a GPU's product of matrices takes at once."""
        most = max(1, times * PART // self._vocabulary)
        return most - most % 128 if most > 128 and times > 1 else most

    def _before_head(
        self, forward: Callable[[], Tensor], positions: Tensor, chosen: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Run the model with a head that works at a few positions only; what of its input is ``chosen``."""
        seen = _Seen()

        def before(hidden: Tensor) -> Tensor:
            seen.hidden = chosen(hidden)
            return seen.hidden.flatten(0, -2)[:TRIED]

        def after(output: Tensor) -> None:
            seen.output = output

        with _at_head(self._model, positions, before, after):
            logits = forward()
        if self._fits is None:
            self._fits = _same(logits, seen.output)
        if seen.hidden is None:
            raise RuntimeError("the model did not call its head")
        return seen.hidden

    def _in_parts(self, hidden: Tensor, targets: Tensor) -> Tensor:
        size = self._tokens()
        return torch.cat(
            [self._part(*pair) for pair in zip(torch.split(hidden, size), torch.split(targets, size), strict=True)]
        )

    def _part(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._logits_and_losses(hidden, targets)
        losses: Tensor = checkpoint(
            self._logits_and_losses, hidden, targets, use_reentrant=False, context_fn=self._contexts
        )
        return losses

    def _logits_and_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.logits_of(hidden).float(), targets, reduction="none")


def _same(logits: Tensor, output: Tensor | None) -> bool:
    return output is not None and logits.shape == output.shape and torch.equal(logits, output.to(logits.dtype))
