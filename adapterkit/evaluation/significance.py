"""Tests: how often would chance alone make two adapters differ as much as they do on these rows?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .samples import AT_ONCE, Ratio, Whole

if TYPE_CHECKING:
    from .samples import Numbers, Sampled

__all__ = ["compare_scores", "sign_flips", "sign_test"]

FLIPS = 9_999
"""Random exchanges of the two: the smallest p value is then 1 in 10,000."""


def compare_scores(first: Sampled, second: Sampled, seed: int, exchanges: int = 1000) -> tuple[float, str]:
    """The two-sided p value of the difference of two scores on the same rows, and the test that gave it.

    Args:
        first: A score of one.
        second: The same of the other, on the same rows.
        seed: Governs what is exchanged.
        exchanges: How often, for a score that is no sum over rows.

    Returns:
        ``"mcnemar"`` for rows that are right or wrong, exact (McNemar 1947); ``"permutation"`` for everything else: the two
        adapters' answers to a row are exchanged at random (Fisher 1935; approximate randomization in Noreen 1989).
    """
    if isinstance(first, Ratio) and isinstance(second, Ratio):
        both = (first.counts > 0) & (second.counts > 0)
        one, other = first.among(both), second.among(both)
        if one.is_share and other.is_share:
            return sign_test(int((one.sums > other.sums).sum()), int((one.sums < other.sums).sum())), "mcnemar"
        return sign_flips(one.sums / one.counts.sum() - other.sums / other.counts.sum(), seed), "permutation"
    if not isinstance(first, Whole) or not isinstance(second, Whole):
        raise TypeError(f"{type(first).__name__} and {type(second).__name__} are no scores of one kind")
    kept = np.random.default_rng(seed).integers(0, 2, (exchanges, len(first.references))).astype(bool)
    moved = first.exchanged(second, kept)
    as_far = np.count_nonzero(np.abs(moved) >= abs(first.value - second.value) * (1 - 1e-12))
    return (int(as_far) + 1) / (exchanges + 1), "permutation"


def sign_test(better: int, worse: int) -> float:
    """The chance that as many of ``better + worse`` fair coins, or more, show one face: the exact two-sided p value.

    Of rows on which two are equally good, it takes no account.
    """
    rows, fewer = better + worse, min(better, worse)
    if 2 * fewer >= rows - 1:
        return 1.0
    ways = total = 1
    for k in range(fewer):
        ways = ways * (rows - k) // (k + 1)
        total += ways
    chance: float = 2 * total / 2**rows
    return chance


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
