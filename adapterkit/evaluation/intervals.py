"""Confidence intervals: between what values a score, or a difference of two, may well lie on all rows of the kind."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from .samples import Ratio

if TYPE_CHECKING:
    from .samples import Numbers, Sampled

__all__ = ["Interval", "bootstrap", "difference_interval", "newcombe", "score_interval", "wilson"]

Interval = tuple[float, float]
NORMAL = NormalDist()


def score_interval(score: Sampled, sampled: Numbers, confidence: float) -> Interval | None:
    """A score's interval, of its values on samples of the rows; one of right and wrong rows needs none.

    None where all samples have one value: they say nothing of other rows.

    Twenty right answers of twenty are the same in every sample, as if no other row could be wrong; Wilson's interval knows.
    """
    if isinstance(score, Ratio):
        if score.is_share:
            return wilson(int(score.sums.sum()), int(score.counts.sum()), confidence)
        return bootstrap(score.value, sampled, confidence, score.influence)
    return bootstrap(score.value, sampled, confidence)


def difference_interval(
    first: Sampled, second: Sampled, sampled: tuple[Numbers, Numbers], confidence: float
) -> Interval | None:
    """The interval of ``first - second`` on the same rows, each given with its values on the same samples; None as above."""
    value, moved = first.value - second.value, sampled[0] - sampled[1]
    if isinstance(first, Ratio) and isinstance(second, Ratio):
        if first.is_share and second.is_share:
            both = (first.counts > 0) & (second.counts > 0)
            return newcombe(first.sums[both] > 0, second.sums[both] > 0, confidence)
        return bootstrap(value, moved, confidence, first.influence - second.influence)
    return bootstrap(value, moved, confidence)


def wilson(right: int, rows: int, confidence: float) -> Interval:
    """The interval of a share, ``right`` of ``rows`` (Wilson 1927)."""
    if not rows:
        return math.nan, math.nan
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    share, spread = right / rows, 1 + z**2 / rows
    middle = (share + z**2 / (2 * rows)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    # at the ends it is exact, but for rounding
    return (0.0 if right == 0 else middle - half), (1.0 if right == rows else middle + half)


def newcombe(first: Numbers, second: Numbers, confidence: float) -> Interval:
    """The interval of the difference of two shares of the same rows (Newcombe 1998, method 10).

    Args:
        first: For each row, whether the first has it right.
        second: The same for the second.
        confidence: Such as 0.95.
    """
    rows = len(first)
    if not rows:
        return math.nan, math.nan
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    one, other = int((first & ~second).sum()), int((~first & second).sum())
    (low1, high1), (low2, high2) = (wilson(int(right.sum()), rows, confidence) for right in (first, second))
    p1, p2 = (both + one) / rows, (both + other) / rows
    phi = _correlation(both, one, other, neither)
    below, above = (p1 - low1, high2 - p2), (high1 - p1, p2 - low2)
    return p1 - p2 - _apart(*below, phi), p1 - p2 + _apart(*above, phi)


def _correlation(both: int, one: int, other: int, neither: int) -> float:
    product = (both + one) * (other + neither) * (both + other) * (one + neither)
    if not product:
        return 0.0
    excess: float = both * neither - one * other
    if excess > 0:  # the correction for small numbers
        excess = max(excess - (both + one + other + neither) / 2, 0)
    return excess / math.sqrt(product)


def _apart(mine: float, yours: float, phi: float) -> float:
    return math.sqrt(max(mine**2 - 2 * phi * mine * yours + yours**2, 0.0))


def bootstrap(value: float, sampled: Numbers, confidence: float, influence: Numbers | None = None) -> Interval | None:
    """The interval of a value, from what it is on samples of the rows (Efron 1987: corrected for bias, and accelerated).

    None where it is the same on all of them.

    Args:
        value: Of the rows as they are.
        sampled: Of each sample; NaN where the sample has nothing to score.
        confidence: Such as 0.95.
        influence: How far each row moves the value, which tells how its spread changes with it. Without it, that is not corrected.
    """
    known = np.sort(sampled[~np.isnan(sampled)])
    if not len(known) or known[0] == known[-1]:
        return None
    below = (np.count_nonzero(known < value) + np.count_nonzero(known <= value)) / 2
    bias = NORMAL.inv_cdf(min(max(below / len(known), 1 / len(known)), 1 - 1 / len(known)))
    lean = _acceleration(influence)
    low, high = (_corrected(bias, lean, NORMAL.inv_cdf((1 + sign * confidence) / 2)) for sign in (-1, 1))
    low_value, high_value = np.quantile(known, [low, high])
    return min(float(low_value), value), max(float(high_value), value)


def _acceleration(influence: Numbers | None) -> float:
    if influence is None:
        return 0.0
    squares = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * squares**1.5) if squares else 0.0


def _corrected(bias: float, lean: float, z: float) -> float:
    moved = bias + z
    left = 1 - lean * moved
    return NORMAL.cdf(bias + moved / left) if left > 0 else float(moved > 0)
