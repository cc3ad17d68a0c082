"""Axes: from values to places, and ticks at numbers that are easy to read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Scale", "make_scale"]

SPREAD = 20.0
"""Values that differ by more than this factor are drawn on a logarithmic axis, where small ones can still be read."""
SMALLEST = 1e-30
"""No logarithmic axis begins below."""
MARGIN = 0.05


@attrs.frozen
class Scale:
    """An axis.

    Attributes:
        low: The value at its beginning.
        high: The value at its end.
        logarithmic: Whether equal distances are equal factors.
        ticks: Values with a label.
    """

    low: float
    high: float
    logarithmic: bool = False
    ticks: tuple[tuple[float, str], ...] = ()

    def place(self, value: float) -> float:
        """Where a value is, from 0 at the beginning to 1 at the end."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def make_scale(values: Sequence[float], ticks: int = 5, *, steps: bool = False, linear: bool = False) -> Scale:
    """An axis that shows all values.

    Args:
        values: Finite numbers, at least one.
        ticks: About how many labels.
        steps: Whole numbers from the first to the last, as on an axis of steps: no margin, no logarithm.
        linear: No logarithm, however wide the range.
    """
    low, high = min(values), max(values)
    if steps:
        high = max(high, low + 1)
        return Scale(low, high, ticks=_linear_ticks(low, high, ticks, least=1.0))
    if not linear and low > SMALLEST and high / low > SPREAD:
        room = (high / low) ** MARGIN
        low, high = low / room, high * room
        return Scale(low, high, logarithmic=True, ticks=_logarithmic_ticks(low, high, ticks))
    room = MARGIN * (high - low) or 0.1 * abs(high) or 1.0
    from_zero = 0 <= low <= 0.25 * high
    low, high = 0.0 if from_zero else low - room, high + room
    return Scale(low, high, ticks=_linear_ticks(low, high, ticks))


def _linear_ticks(low: float, high: float, wanted: int, least: float = 0.0) -> tuple[tuple[float, str], ...]:
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.75 * rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((index * step, _label(index * step, step)) for index in range(first, last + 1))


def _logarithmic_ticks(low: float, high: float, wanted: int) -> tuple[tuple[float, str], ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= wanted + 2:
            break
    found = found[:: math.ceil(len(found) / (wanted + 2))]
    return tuple((value, _label(value, value)) for value in found)


def _label(value: float, step: float) -> str:
    """As short as it can be said to the precision of ``step``."""
    size = abs(value)
    if not size:
        return "0"
    if size >= 1e6 or step < 1e-4:
        mantissa, _, power = f"{value:.3g}".partition("e") if "e" in f"{value:.3g}" else f"{value:.2e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(power)}".replace("-", "−")
    if step >= 1_000:
        return f"{value / 1000:g}k".replace("-", "−")
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{places}f}".replace("-", "−")
