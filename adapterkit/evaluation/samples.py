"""Scores as they would be on other rows of the same kind: the rows at hand are drawn again and again (the bootstrap)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Numbers", "Ratio", "Sampled", "Whole", "draw", "on_samples"]

Numbers = np.ndarray[Any, np.dtype[Any]]
AT_ONCE = 2**22
"""Row numbers in memory at once."""


class Sampled(Protocol):
    """A score that can be computed of any sample of the rows."""

    @property
    def value(self) -> float:
        """Of the rows as they are."""

    def on(self, samples: Numbers) -> Numbers:
        """Of each sample, ``(samples,)``, whose row numbers are ``(samples, rows)``."""


@attrs.frozen(eq=False)
class Ratio:
    """A sum over rows, divided by another: the mean of a value for each row, or a loss per token.

    Attributes:
        sums: For each row, what is summed above.
        counts: For each row, what is summed below; 0 for a row of which the score says nothing.
    """

    sums: Numbers
    counts: Numbers

    @classmethod
    def mean(cls, values: Sequence[float]) -> Ratio:
        """The mean of ``values``, but for those that are NaN."""
        known = np.asarray(values, dtype=float)
        missing = np.isnan(known)
        return cls(np.where(missing, 0.0, known), (~missing).astype(float))

    @property
    def value(self) -> float:
        """Of the rows as they are; NaN where nothing counts."""
        total = float(self.counts.sum())
        return float(self.sums.sum()) / total if total else float("nan")

    def on(self, samples: Numbers) -> Numbers:
        """Of each sample; NaN where nothing in it counts."""
        with np.errstate(invalid="ignore"):
            ratios: Numbers = self.sums[samples].sum(1) / self.counts[samples].sum(1)
        return ratios

    @property
    def is_share(self) -> bool:
        """Whether each row that counts is simply right or wrong."""
        return bool(np.isin(self.counts, (0, 1)).all() and np.isin(self.sums, (0, 1)).all())

    @property
    def influence(self) -> Numbers:
        """How far each row moves the value, to first order."""
        moved: Numbers = (self.sums - self.value * self.counts) / self.counts.sum()
        return moved

    def among(self, rows: Numbers) -> Ratio:
        """The same of some rows, chosen by a mask."""
        return Ratio(self.sums[rows], self.counts[rows])


@attrs.frozen(eq=False)
class Whole:
    """A score that is no sum over rows, such as macro F1.

    Attributes:
        value: Of the rows as they are.
        predictions: What was answered.
        references: What was expected, in the same order.
        score: From answers, expected ones and samples ``(samples, rows)`` of row numbers to the score of each sample.
    """

    value: float
    predictions: Sequence[str]
    references: Sequence[str]
    score: Callable[[Sequence[str], Sequence[str], Numbers], Numbers]

    def on(self, samples: Numbers) -> Numbers:
        """Of each sample; NaN where it has nothing to score."""
        return self.score(self.predictions, self.references, samples)

    def exchanged(self, other: Whole, kept: Numbers) -> Numbers:
        """The difference to ``other``, ``(times,)``, were each row's answers exchanged but where ``kept``, ``(times, rows)``."""
        rows = np.arange(len(self.references))
        given, expected = [*self.predictions, *other.predictions], [*self.references, *other.references]
        mine, theirs = np.where(kept, rows, rows + len(rows)), np.where(kept, rows + len(rows), rows)
        return self.score(given, expected, mine) - self.score(given, expected, theirs)


def draw(rows: int, resamples: int, seed: int) -> Iterator[Numbers]:
    """Row numbers of ``resamples`` samples of as many rows, drawn with replacement, in parts of ``(some, rows)``.

    The same arguments give the same samples: scores of several adapters on them are paired.
    """
    stream = np.random.default_rng(seed)
    left = resamples
    while left:
        part = min(left, max(1, AT_ONCE // rows))
        yield stream.integers(0, rows, (part, rows), dtype=np.int32)
        left -= part


def on_samples(scores: Mapping[str, Sampled], rows: int, resamples: int, seed: int) -> dict[str, Numbers]:
    """Each score on the same samples, ``(resamples,)``."""
    parts = [{name: score.on(samples) for name, score in scores.items()} for samples in draw(rows, resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in scores}
