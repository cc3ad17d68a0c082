"""The largest batch and the longest row that fit: what a step takes is known for any number of tokens from three of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.head import MOST_LOGITS

from .rehearsal import Step

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Curve", "largest"]

FEWEST = 2048
"""Fewer tokens have tensors that are too small to be treated as those of many are: to be offloaded, for instance."""
POINTS = (1, 2, 3)


class Curve:
    """A step of any number of things, by three rehearsals; below where the curve holds, by rehearsals of their own.

    Args:
        rehearse: The step of so many things.
        tokens: How many tokens one of them has.
        vocabulary: Of the base: below some number of tokens, all logits are there at once.
    """

    def __init__(self, rehearse: Callable[[int], Step], tokens: int, vocabulary: int) -> None:
        self._rehearse = rehearse
        enough = max(FEWEST, 2 * MOST_LOGITS // vocabulary)
        self._unit = -(-enough // tokens)
        self._known: dict[int, Step] = {}

    def at(self, count: int) -> Step:
        """The step of ``count`` things."""
        if count < self._unit:
            return self._real(count)
        return Step.through([(self._unit * point, self._real(self._unit * point)) for point in POINTS], count)

    def _real(self, count: int) -> Step:
        if count not in self._known:
            self._known[count] = self._rehearse(count)
        return self._known[count]

    def largest(self, takes: Callable[[Step], float], room: float, most: int) -> int:
        """The largest number up to ``most`` whose step ``takes`` at most ``room``; 0 where even one takes more."""
        if most >= self._unit and takes(self._real(self._unit)) <= room:
            return largest(lambda count: takes(self.at(count)), room, self._unit, most)
        return largest(lambda count: takes(self._real(count)), room, 0, min(most, self._unit - 1))


def largest(takes: Callable[[int], float], room: float, fits: int, most: int) -> int:
    """The largest whole number from ``fits``, which is known to fit, up to ``most`` of which ``takes`` is at most ``room``."""
    low, high = fits, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) <= room else (low, middle)
    return low
