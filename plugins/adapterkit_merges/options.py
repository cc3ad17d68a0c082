"""The options that strategies share: their values, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from adapterkit import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Inside", "Majority", "Normalize", "Of", "Rescale", "Vote", "check", "check_equal", "shares"]

Majority: TypeAlias = Literal["total", "frequency"]
"""What decides a sign: the sum of the values, or how many there are of each sign."""
Vote: TypeAlias = Literal["weighted", "equal"]
"""Whether signs are decided on changes times their weights, or on the changes alone."""
Normalize: TypeAlias = Literal["weights", "count", "none"]
"""What a sum of agreeing values is divided by: the sum of the sizes of their weights, their number, or nothing."""
Rescale: TypeAlias = Literal["probability", "l1", "none"]
"""How what was kept makes up for what was dropped: each value by its chance of being kept, or all by one factor."""
Inside: TypeAlias = Literal["ties", "dare_ties", "linear"]
"""What merges changes that were aligned."""
Of: TypeAlias = Literal["updates", "weights"]
"""What an angle is measured between: the changes, or whole weights, the base's included."""

LARGEST = 1e30
"""The largest scaling: beyond it changes leave the range of float32."""
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "density": (lambda value: 0 < value <= 1, "must be above 0 and at most 1"),
    "gamma": (lambda value: 0 <= value < 1, "must be at least 0 and below 1"),
    "epsilon": (lambda value: 0 <= value < 1, "must be at least 0 and below 1"),
    "select_topk": (lambda value: 0 < value <= 1, "must be above 0 and at most 1"),
    "t": (lambda value: 0 <= value <= 1, "must be at least 0 and at most 1"),
    "scaling": (lambda value: abs(value) <= LARGEST, f"must be a number of at most {LARGEST:g}"),
    "iterations": (lambda value: value >= 1, "must be at least 1"),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "majority_sign_method": get_args(Majority),
    "vote": get_args(Vote),
    "normalize": get_args(Normalize),
    "rescale": get_args(Rescale),
    "inside": get_args(Inside),
    "of": get_args(Of),
}


def check(strategy: str, *more: str | None, **options: Any) -> None:
    """Refuse what no strategy can work with.

    Args:
        strategy: The name of the strategy.
        more: What else is wrong, each as ``"option: sentence"``; None where it is right.
        options: Values by the names that options have everywhere here.

    Raises:
        ConfigError: Some do not fit; it names them all.
    """
    problems = [*_problems(options), *(problem for problem in more if problem)]
    if problems:
        raise ConfigError(f"options of merge strategy {strategy!r} do not fit", problems)


def check_equal(strategy: str, weights: Sequence[float], why: str) -> None:
    """Refuse weights that are not all the same positive number, where a strategy finds its own.

    Raises:
        ConfigError: They are not.
    """
    same = min(weights) == max(weights) > 0
    check(strategy, None if same else f"weights: {why}; give none, or the same to all, not {list(weights)}")


def shares(strategy: str, weights: Sequence[float]) -> list[float]:
    """The weights, divided by their sum.

    Raises:
        ConfigError: Their sum is zero.
    """
    total = math.fsum(weights)
    zero = abs(total) <= 1e-12 * math.fsum(map(abs, weights))
    check(strategy, f"weights: a mean needs weights whose sum is not 0, not {list(weights)}" if zero else None)
    return [weight / total for weight in weights]


def _problems(options: dict[str, Any]) -> Iterable[str]:
    for name, value in options.items():
        if name in CHOICES:
            if value not in CHOICES[name]:
                yield f"{name}: must be {', '.join(map(repr, CHOICES[name]))}, not {value!r}"
        else:
            fits, sentence = RULES[name]
            if not fits(value):
                yield f"{name}: {sentence}, not {value!r}"
