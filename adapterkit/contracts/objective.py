"""What a run minimises, and what it is measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from .data import Record

__all__ = ["Encoder", "Example", "Forward", "Loss", "Metric", "Objective"]


@attrs.frozen
class Example:
    """One encoded row.

    Attributes:
        input_ids: Token ids.
        labels: As long as ``input_ids``; the token's own id where it is trained, -100 where it is not.
        truncated: How many tokens were cut off because the row was longer than ``max_length``.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: int = 0

    @property
    def trained(self) -> int:
        """How many tokens count in the loss: the first one never does, as nothing comes before it."""
        return sum(label != -100 for label in self.labels[1:])

    def after(self, tokens: Sequence[int]) -> Example:
        """The same row after ``tokens``; what is trained is the same: its first token is none, as it is not alone either."""
        if not tokens:
            return self
        labels = (-100,) * (len(tokens) + 1) + self.labels[1:]
        return attrs.evolve(self, input_ids=(*tokens, *self.input_ids), labels=labels)


class Encoder(Protocol):
    """Turns a record into tokens; made of the tokenizer and ``max_length``."""

    def __call__(self, record: Record) -> Example:
        """The record's tokens, and which of them are trained."""


class Forward(Protocol):
    """The base with the adapter in training, as an objective sees it."""

    def __call__(self, batch: Mapping[str, Tensor], positions: Tensor | None = None) -> Tensor:
        """Logits for ``batch``: ``(batch, sequence, vocabulary)``, or ``(n, vocabulary)`` at the n true ``positions``."""

    def token_losses(self, batch: Mapping[str, Tensor], positions: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, ``(n,)`` in float32, of the token ids ``targets`` at the n true ``positions``.

        The same as of the logits, which are never all there at once where they would be large.
        """


class Loss(NamedTuple):
    """The sum of the losses of so many trained ``tokens``: the trainer divides, over the whole accumulated batch."""

    total: Tensor
    tokens: Tensor


@attrs.frozen(eq=False, kw_only=True)
class Objective:
    """What a run minimises.

    Attributes:
        name: What users write in ``objective=``.
        loss: From the model and a batch with ``input_ids`` and ``labels`` (a sequence may hold several rows) to the summed loss.
        summary: One line for listings.
    """

    name: str
    loss: Callable[[Forward, Mapping[str, Any]], Loss]
    summary: str = ""


@attrs.frozen(eq=False, kw_only=True)
class Metric:
    """A score of generated answers.

    Attributes:
        name: Lower-case with underscores.
        compute: From the generated texts and the expected ones, in the same order, to scores by name.
        summary: One line for listings.
    """

    name: str
    compute: Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]
    summary: str = ""
