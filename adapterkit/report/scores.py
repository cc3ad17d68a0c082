"""Scores with their intervals, beside the base's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from .numbers import number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Score", "all_scores", "headline", "is_fraction", "lower_is_better", "words"]

LOWER = ("loss", "perplexity")
FRACTIONS = ("accuracy", "exact_match", "f1", "precision", "recall", "rouge", "json", "field")
"""Scores whose names begin so, or end so behind an underscore, are parts of one and read as percentages."""
TELLING = ("accuracy", "exact_match", "f1", "rougeL", "rouge_l", "json_valid")
"""What the headline speaks of: the first of these that there is, else the first score that is no loss."""


@attrs.frozen(kw_only=True)
class Score:
    """A score of the adapter and of the base on the same rows.

    Attributes:
        name: The metric's name.
        value: With the adapter.
        interval: Its confidence interval, or None.
        base: Of the base alone, or None.
        base_interval: Its confidence interval, or None.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    base: float | None = None
    base_interval: tuple[float, float] | None = None

    @property
    def better(self) -> bool | None:
        """Whether the adapter is better than the base; None when the two are equal or there is no base."""
        if self.base is None or self.value == self.base:
            return None
        return (self.value < self.base) == lower_is_better(self.name)

    @property
    def clear(self) -> bool | None:
        """Whether the two intervals do not touch; None when one is missing."""
        if self.interval is None or self.base_interval is None:
            return None
        return self.interval[1] < self.base_interval[0] or self.base_interval[1] < self.interval[0]

    def say(self, value: float | None) -> str:
        """A value of this score in words."""
        return percent(value) if is_fraction(self.name) else number(value)

    def say_interval(self, interval: tuple[float, float] | None) -> str:
        """An interval of this score in words; empty when there is none."""
        return f"{self.say(interval[0])} to {self.say(interval[1])}" if interval else ""

    @property
    def gain(self) -> str:
        """The difference to the base in words, with its sign; empty without a base."""
        if self.base is None:
            return ""
        difference = self.value - self.base
        said = f"{abs(100 * difference):.1f}" if is_fraction(self.name) else number(abs(difference))
        sign = "+" if difference > 0 else "−" if difference < 0 else "±"
        return f"{sign}{said}{' points' if is_fraction(self.name) else ''}"


def all_scores(evaluation: Mapping[str, Any] | None) -> tuple[Score, ...]:
    """Every score of ``evaluation.json`` that is a number, in its order."""
    if not evaluation:
        return ()
    base, intervals = _mapping(evaluation, "base"), _mapping(evaluation, "intervals")
    base_intervals = _mapping(evaluation, "base_intervals")
    return tuple(
        Score(
            name=name,
            value=float(value),
            interval=_interval(intervals.get(name)),
            base=_float(base.get(name)),
            base_interval=_interval(base_intervals.get(name)),
        )
        for name, value in _mapping(evaluation, "scores").items()
        if _float(value) is not None
    )


def headline(scores: Sequence[Score]) -> Score | None:
    """The score that tells most to somebody who reads only one."""
    by_name = {score.name: score for score in scores}
    telling = [by_name[name] for name in TELLING if name in by_name]
    rest = [score for score in scores if not lower_is_better(score.name)]
    return next(iter([*telling, *rest, *scores]), None)


def lower_is_better(name: str) -> bool:
    """Whether less of a score is better: of losses and perplexities."""
    return name.endswith(LOWER)


def is_fraction(name: str) -> bool:
    """Whether a score is read as a percentage."""
    return name.startswith(FRACTIONS) or name.endswith(tuple(f"_{one}" for one in FRACTIONS))


def words(name: str) -> str:
    """A score's name as it is read."""
    return name.replace("_", " ").strip()


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = _float(value[0]), _float(value[1])
    return (low, high) if low is not None and high is not None else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
