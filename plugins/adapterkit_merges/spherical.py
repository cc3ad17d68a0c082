"""Means along the sphere: turning from one to the other instead of cutting through, so that the mean is as long as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch
from torch import Tensor

from .consensus import weighted_sum
from .options import Of, check, shares
from .products import products

__all__ = ["karcher", "slerp"]

PARALLEL = 0.9995
"""The cosine from which on slerp is a straight line: mergekit's; there the two differ by at most 1.3e-4 of the length."""


def slerp(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    t: float | None = None,
    of: Of = "updates",
    base: Tensor | None = None,
) -> Tensor:
    """``sin((1 - t) a) / sin(a) * x + sin(t a) / sin(a) * y`` for two changes, or two whole weights, at the angle ``a``.

    Shoemake 1985. Good for two adapters in halves that should each stay as strong as a whole one.

    ``of="updates"`` turns from one change to the other: mergekit's ``nuslerp`` with a base. ``of="weights"`` turns from the
    base plus one to the base plus the other, as mergekit's ``slerp`` does; whole weights of two fine-tunes are nearly
    parallel, so that this is a plain mean of the two changes in all but the last digits.

    Args:
        deltas: The two changes, ``(out_features, in_features)``.
        weights: One for each; where ``t`` is not given, it is the second's part of their sum.
        t: How far to go from the first, 0, to the second, 1; the weights are then equal, or not given.
        of: What is turned: the ``"updates"``, or the whole ``"weights"``, which needs a base.
        base: The base's own weight.
    """
    two = None if len(deltas) == 2 else f"adapters: slerp goes between exactly two, not {len(deltas)}; take 'karcher'"
    check("slerp", two, _needs(of, base), of=of, **({} if t is None else {"t": t}))
    if t is None:
        t = shares("slerp", weights)[1]
        check("slerp", None if 0 <= t <= 1 else f"weights: must not be negative, not {list(weights)}")
    elif weights[0] != weights[1]:
        check("slerp", f"t: says how much each counts, and so do the weights {list(weights)}; give one of the two")
    origin = base if of == "weights" else None
    (first, cross), (_, second) = products(deltas, origin).tolist()
    return _placed(deltas, _turn(first, second, cross, t), origin)


def karcher(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    of: Of = "updates",
    iterations: int = 50,
    base: Tensor | None = None,
) -> Tensor:
    """The point of the sphere with the least weighted sum of squared angles to all directions, as long as their mean length.

    Karcher 1977; mergekit's ``karcher`` with ``of="weights"`` and equal weights. Good for what ``slerp`` is, with more
    than two.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each; only their proportions count.
        of: As for ``slerp``.
        iterations: How many steps are taken at most.
        base: The base's own weight.
    """
    check("karcher", _needs(of, base), of=of, iterations=iterations)
    parts = shares("karcher", weights)
    check("karcher", None if min(parts) >= 0 else f"weights: must not be negative, not {list(weights)}")
    origin = base if of == "weights" else None
    return _placed(deltas, _mean_direction(products(deltas, origin), parts, iterations), origin)


def _needs(of: Of, base: Tensor | None) -> str | None:
    return "of: 'weights' needs the base; give base=, or take 'updates'" if of == "weights" and base is None else None


def _placed(deltas: Sequence[Tensor], factors: Sequence[float], origin: Tensor | None) -> Tensor:
    """The sum of ``factor * (origin + delta)``, less the origin."""
    merged = weighted_sum(deltas, factors)
    return merged if origin is None else merged.add_(origin.to(merged.dtype), alpha=math.fsum(factors) - 1)


def _turn(first: float, second: float, cross: float, t: float) -> tuple[float, float]:
    """The factors of two vectors, of their squared lengths and their product."""
    lengths = math.sqrt(first * second)
    cosine = max(-1.0, min(1.0, cross / lengths)) if lengths > 0 else 1.0
    if abs(cosine) > PARALLEL:  # no plane to turn in; and none where one is zero
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _mean_direction(table: Tensor, parts: Sequence[float], iterations: int) -> list[float]:
    """The factors of the vectors in their Karcher mean, of nothing but their inner products."""
    lengths = table.diagonal().sqrt()
    length = float(lengths @ torch.tensor(parts, dtype=lengths.dtype))
    inverse = torch.where(lengths > 0, 1 / lengths, 0)
    cosines = table * inverse[:, None] * inverse
    pulls = torch.tensor(parts, dtype=lengths.dtype) * (lengths > 0)
    if length == 0:
        return [0.0] * len(parts)
    pulls /= pulls.sum()
    mean = _unit(pulls, cosines)
    for _ in range(iterations):
        along = (cosines @ mean).clamp(-1, 1)
        angles, sines = along.acos(), (1 - along.square()).sqrt()
        # nothing turns what is there already, nor what is straight opposite: there are as many ways as directions
        drawn = pulls * torch.where(sines > 1e-6, angles / sines, 0)
        tangent = drawn - (drawn @ along) * mean
        step = _length(tangent, cosines)
        if step < 1e-12:
            break
        mean = _unit(math.cos(step) * mean + math.sin(step) / step * tangent, cosines)
    factors: list[float] = (length * mean * inverse).tolist()
    return factors


def _unit(factors: Tensor, cosines: Tensor) -> Tensor:
    """The factors of a vector of the length 1; where they make none, as opposites do, of the first that has a part."""
    length = _length(factors, cosines)
    if length > 1e-9:
        return factors / length
    return torch.eye(len(factors), dtype=factors.dtype)[int(factors.nonzero()[0])]


def _length(factors: Tensor, cosines: Tensor) -> float:
    return math.sqrt(max(0.0, float(factors @ cosines @ factors)))
