"""How long texts are: quantiles, and bins of round widths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .findings import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["histogram"]

BINS = 20
"""About so many bins."""
REACH = 0.99
"""The bins end behind this part of all texts, and the last one holds what is longer."""


def histogram(name: str, unit: str, lengths: Sequence[int]) -> Histogram:
    """A histogram of at least one length."""
    ordered = sorted(lengths)
    low, high = ordered[0], ordered[math.ceil(REACH * len(ordered)) - 1]
    width = _round_up((high - low + 1) / BINS)
    first = low // width * width
    bins = (high - first) // width + 1
    counts = [0] * bins
    for length in ordered:
        counts[min((length - first) // width, bins - 1)] += 1
    edges = [first + place * width for place in range(bins)]
    return Histogram(
        name=name,
        unit=unit,
        total=sum(ordered),
        quantiles={
            "min": ordered[0],
            **{f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in (50, 90, 99)},
            "max": ordered[-1],
        },
        edges=(*edges, max(edges[-1] + width, ordered[-1] + 1)),
        counts=tuple(counts),
    )


def _round_up(value: float) -> int:
    """The next round number: 1, 2, 5, 10, 20, 50 and so on."""
    power: int = 10 ** max(0, math.floor(math.log10(value)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)
