"""Tests: how often would chance alone make two adapters differ as much as they do on these rows?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .samples import AT_ONCE, Ratio

if TYPE_CHECKING:
    from .samples import Numbers, Sampled

__all__ = ["compare_scores", "sign_flips", "sign_test"]

FLIPS = 9_999
"""Random exchanges of the two: the smallest p value is then 1 in 10,000."""


def compare_scores(first: Sampled, second: Sampled, sampled: tuple[Numbers, Numbers], seed: int) -> tuple[float, str]:
    """The two-sided p value of the difference of two scores on the same rows, and the test that gave it.

    Returns:
        ``"mcnemar"`` for rows that are right or wrong, exact (McNemar 1947); ``"permutation"`` for other values of rows: the two
        adapters' are exchanged at random (Fisher 1935); ``"bootstrap"`` for scores that are no sum over rows (Efron and
        Tibshirani 1993, chapter 16).
    """
    if isinstance(first, Ratio) and isinstance(second, Ratio):
        both = (first.counts > 0) & (second.counts > 0)
        one, other = first.among(both), second.among(both)
        if one.is_share and other.is_share:
            return sign_test(int((one.sums > other.sums).sum()), int((one.sums < other.sums).sum())), "mcnemar"
        return sign_flips(one.sums / one.counts.sum() - other.sums / other.counts.sum(), seed), "permutation"
    moved = sampled[0] - sampled[1]
    moved = moved[~np.isnan(moved)]
    value = first.value - second.value
    as_far = np.count_nonzero(np.abs(moved - value) >= abs(value) * (1 - 1e-12))
    return float(min(1.0, (as_far + 1) / (len(moved) + 1))), "bootstrap"


def sign_test(better: int, worse: int) -> float:
    """The chance that as many of ``better + worse`` fair coins, or more, show one face: the exact two-sided p value.

    Of rows on which two are equally good, it takes no account.
    """
    rows, fewer = better + worse, min(better, worse)
    if 2 * fewer >= rows - 1:
        return 1.0
    logs = [math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(one - rows * math.log(2)) for one in logs))


def sign_flips(differences: Numbers, seed: int, flips: int = FLIPS) -> float:
    """The part of random signs of ``differences`` under which their sum is as far from 0 as it is: a two-sided p value."""
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    stream, found, left = np.random.default_rng(seed), 0, flips
    least = abs(float(differences.sum())) * (1 - 1e-12)  # sums that differ by rounding alone are as far
    while left:
        part = min(left, max(1, AT_ONCE // len(differences)))
        signs = stream.integers(0, 2, (part, len(differences)), dtype=np.int8) * 2 - 1
        found += int(np.count_nonzero(np.abs(signs @ differences) >= least))
        left -= part
    return (found + 1) / (flips + 1)
