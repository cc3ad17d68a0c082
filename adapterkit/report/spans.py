"""Scores and their intervals as dots on lines that share one scale, so that the eye can compare them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from .scales import SMALLEST, SPREAD
from .scores import is_fraction

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Span", "place"]

Measured = tuple[float | None, tuple[float, float] | None]


@attrs.frozen
class Span:
    """Places in percent: of the value, and of both ends of its interval, which are the same without one."""

    at: str
    low: str
    high: str


def place(name: str, measured: Sequence[Measured]) -> tuple[Span | None, ...]:
    """Each value and its interval on one scale: from 0 to 1 for a fraction, from 0 otherwise, logarithmic over a wide range."""
    ends = [end for value, interval in measured if value is not None for end in (value, *(interval or ()))]
    if not ends:
        return tuple(None for _ in measured)
    low, high = min(ends), max(ends)
    wide = low > SMALLEST and high / low > SPREAD and not is_fraction(name)

    def share(value: float) -> str:
        if is_fraction(name) and low >= 0 and high <= 1:
            part = value
        elif wide:
            part = math.log(value / low) / math.log(high / low)
        else:
            start = min(0.0, low)
            part = (value - start) / ((high - start) or 1.0)
        return f"{100 * part:.2f}%"

    return tuple(
        None if value is None else Span(share(value), *(share(end) for end in (interval or (value, value))))
        for value, interval in measured
    )
