"""What a run minimises, and what it is measured by."""

from __future__ import annotations

import math
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
        weights: As long as ``input_ids``; how much each trained token counts. None where each counts 1.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: int = 0
    weights: tuple[float, ...] | None = None

    @property
    def trained(self) -> float:
        """How many tokens count in the loss, by their weight; the first one never does, as nothing comes before it."""
        if self.weights is None:
            return sum(label != -100 for label in self.labels[1:])
        pairs = zip(self.labels[1:], self.weights[1:], strict=True)
        return math.fsum(weight for label, weight in pairs if label != -100)

    def after(self, tokens: Sequence[int]) -> Example:
        """The same row after ``tokens``; what is trained is the same: its first token is none, as it is not alone either."""
        if not tokens:
            return self
        labels = (-100,) * (len(tokens) + 1) + self.labels[1:]
        weights = None if self.weights is None else (1.0,) * len(tokens) + self.weights
        return attrs.evolve(self, input_ids=(*tokens, *self.input_ids), labels=labels, weights=weights)


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
    """The sum of the losses of so many trained ``tokens``: the trainer divides, over the whole accumulated batch.

    Where rows have weights, each token's loss is multiplied by its own, and ``tokens`` is the sum of the weights.
    """

    total: Tensor
    tokens: Tensor


@attrs.frozen(eq=False, kw_only=True)
class Objective:
    """What a run minimises.

    Attributes:
        name: What users write in ``objective=``.
        loss: From the model and a batch with ``input_ids`` and ``labels`` (a sequence may hold several rows), and ``weights``
            where any row has them, to the summed loss.
        summary: One line for listings.
    """

    name: str
    loss: Callable[[Forward, Mapping[str, Any]], Loss]
    summary: str = ""


def _always(references: Sequence[str]) -> bool:  # noqa: ARG001 - what every metric may decide by
    return True


@attrs.frozen(eq=False, kw_only=True)
class Metric:
    """A score of generated answers: ``per_row`` where it is a mean over rows, ``compute`` where it is not.

    Attributes:
        name: Lower-case with underscores; what users write in ``metrics=``.
        compute: From the generated texts and the expected ones, in the same order, to scores by name.
        per_row: From the same to a value for each row, whose mean is the score ``name``; NaN for a row that it says nothing of.
            What is known row by row has better intervals and tests, and rows that two adapters answer differently are found.
        summary: One line for listings.
        applies: Whether the score says anything of rows with these expected answers; where it does not, it is given to those
            who ask for it by name. By default always.
        on_samples: What ``compute`` gives for many samples of the rows at once: from the texts, the expected ones and an array
            ``(samples, rows)`` of row numbers to an array ``(samples,)`` by name. For speed: without it, ``compute`` is called
            for each sample that an interval needs.
        details: From the texts and the expected ones to what else there is to say, as JSON values: a confusion matrix, say.
    """

    name: str
    compute: Callable[[Sequence[str], Sequence[str]], Mapping[str, float]] | None = None
    per_row: Callable[[Sequence[str], Sequence[str]], Sequence[float]] | None = None
    summary: str = ""
    applies: Callable[[Sequence[str]], bool] = _always
    on_samples: Callable[[Sequence[str], Sequence[str], Any], Mapping[str, Any]] | None = None
    details: Callable[[Sequence[str], Sequence[str]], Mapping[str, Any]] | None = None

    def __attrs_post_init__(self) -> None:
        if (self.compute is None) == (self.per_row is None):
            raise ValueError(f"metric {self.name!r} needs either compute or per_row")
        if self.on_samples is not None and self.compute is None:
            raise ValueError(f"metric {self.name!r} has on_samples without compute, which it is a faster form of")
