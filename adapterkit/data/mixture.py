"""Which rows each epoch has when rows come from several sources, each seen as often as its weight says."""

from __future__ import annotations

import functools
import random
from itertools import accumulate
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Mixture", "times"]


def times(weight: float, rows: int) -> int:
    """How many rows a source of so many ``rows`` and this ``weight`` gives to an epoch: one at least."""
    return max(1, round(weight * rows)) if rows else 0


@attrs.frozen
class Mixture:
    """The rows of each epoch, as numbers into all sources' rows one after the other.

    A source of weight 2 gives each of its rows twice. One of weight 0.5 gives half of them: the sources' rows stand in an
    order that ``seed`` decides, and each epoch goes on in it where the last one ended, round and round, so that two epochs
    see all rows once. An epoch depends on its number alone: a run that is resumed draws what it would have drawn.

    Attributes:
        rows: How many rows each source has.
        drawn: How many of them an epoch has.
        seed: Decides the order.
    """

    rows: tuple[int, ...]
    drawn: tuple[int, ...]
    seed: int = 0

    def __len__(self) -> int:
        """How many rows an epoch has; each has as many."""
        return sum(self.drawn)

    def epoch(self, number: int) -> Sequence[int]:
        """The row numbers of an epoch, counted from 0, in the order of the sources: not shuffled yet."""
        if self.drawn == self.rows:
            return range(len(self))
        starts = accumulate(self.rows[:-1], initial=0)
        parts = zip(starts, self.rows, self.drawn, strict=True)
        return [row for source, part in enumerate(parts) for row in self._of_source(source, number, *part)]

    def _of_source(self, source: int, epoch: int, start: int, rows: int, drawn: int) -> list[int]:
        whole, rest = divmod(drawn, rows) if rows else (0, 0)
        numbers = list(range(start, start + rows)) * whole
        if rest:
            order = _order(self.seed, source, rows)
            first = epoch * rest
            numbers += sorted(start + order[(first + place) % rows] for place in range(rest))
        return numbers


@functools.lru_cache(maxsize=8)  # the same for every epoch, and long for large files
def _order(seed: int, source: int, rows: int) -> Sequence[int]:
    order = list(range(rows))
    random.Random(f"{seed}/source {source}").shuffle(order)  # noqa: S311 - not a secret
    return order
