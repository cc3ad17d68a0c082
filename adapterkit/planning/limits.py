"""The largest number that fits, found in few tries, each of which is a rehearsal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["largest"]

NEAR = 0.02
"""So near is near enough: a plan is not more exact than that."""
MOST_TRIES = 16


def largest(takes: Callable[[int], float], room: float, most: int) -> int:
    """The largest whole number up to ``most`` of which ``takes`` is at most ``room``; 0 where even 1 is too much.

    ``takes`` grows, about evenly: each try is where a line through the last two would meet ``room``. Large numbers are found to
    within two percent, and always such that they fit.
    """
    low, high = 0, most + 1
    last, tried = (0, 0.0), 1
    for _ in range(MOST_TRIES):
        taken = takes(tried)
        low, high = (tried, high) if taken <= room else (low, tried)
        if high - low <= max(1, int(low * NEAR)):
            break
        slope = (taken - last[1]) / (tried - last[0]) if last[0] else 0.0
        guess = tried + int((room - taken) / slope) if slope > 0 else 2 * tried
        last = (tried, taken)
        tried = min(max(guess, low + 1), high - 1)
    return low
