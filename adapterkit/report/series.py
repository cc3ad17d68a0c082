"""Curves from a run's log: one value for each step, smoothed, and thinned so that no peak is lost."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Series", "series", "smooth", "thin"]

Points = tuple[tuple[int, float], ...]
SMOOTHED = 25
"""A smoothed value is the mean of about this part of all records."""
FEWEST = 50
"""A curve of fewer records needs no smoothing."""
LARGEST = 1e30
"""A value beyond this is as good as infinite, and no axis could show it."""


@attrs.frozen(kw_only=True)
class Series:
    """A quantity over the run.

    Attributes:
        points: ``(step, value)``, the steps rising and the values finite.
        lost: Steps at which the value was not finite, or so large that it might as well not be.
    """

    points: Points = ()
    lost: tuple[int, ...] = ()

    @property
    def first(self) -> float | None:
        """The first value."""
        return self.points[0][1] if self.points else None

    @property
    def last(self) -> float | None:
        """The last value."""
        return self.points[-1][1] if self.points else None

    def at(self, step: int | None) -> float | None:
        """The value at a step, or the last one before it; the last of all for None."""
        before = [value for where, value in self.points if step is None or where <= step]
        return before[-1] if before else None


def series(log: Iterable[Mapping[str, Any]], name: str) -> Series:
    """One quantity of a log. Where a resumed run took steps again, what was logged last counts."""
    found: list[tuple[int, float]] = []
    for record in log:
        value = _number(record.get(name))
        if value is None:
            continue
        while found and found[-1][0] >= record["step"]:
            found.pop()
        found.append((record["step"], value))
    return Series(
        points=tuple((step, value) for step, value in found if abs(value) <= LARGEST),
        lost=tuple(step for step, value in found if not abs(value) <= LARGEST),
    )


def smooth(points: Points) -> Points:
    """The mean of each value and its neighbours, as many before as after, so that the curve is not late; fewer at both ends."""
    if len(points) < FEWEST:
        return ()
    half = max(1, len(points) // (2 * SMOOTHED))
    sums = (0.0, *accumulate(value for _, value in points))
    smoothed = []
    for index, (step, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        smoothed.append((step, (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)))
    return tuple(smoothed)


def thin(points: Points, buckets: int) -> Points:
    """At most two points for each part of the steps, its least and its greatest, and the first and the last point of all."""
    if len(points) <= 2 * buckets:
        return points
    start, end = points[0][0], points[-1][0]
    parts: dict[int, list[tuple[int, float]]] = {}
    for point in points:
        parts.setdefault((point[0] - start) * buckets // (end - start + 1), []).append(point)
    kept = {points[0], points[-1]}
    for part in parts.values():
        kept |= {min(part, key=_value), max(part, key=_value)}
    return tuple(sorted(kept))


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
