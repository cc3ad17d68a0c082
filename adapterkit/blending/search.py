"""A search that needs no gradients: CMA-ES, for a handful of weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["search"]

Vector: TypeAlias = NDArray[np.float64]
STEP = 0.3
"""How far from the start the first tries are, as a standard deviation."""


def search(
    loss: Callable[[Vector], float], start: Sequence[float], *, tries: int, bound: float, seed: int
) -> tuple[Vector, float]:
    """The best of ``tries`` points within ``±bound``, the first of which is ``start``, and its loss.

    Points are drawn from a Gaussian, whose mean, size and covariance follow the better half of each generation: the (μ/μ_w, λ)
    CMA-ES with the constants of Hansen's tutorial (arXiv 1604.00772), but for the bounds, at which points are put.
    """
    count = len(start)
    draws, mean, size = np.random.default_rng(seed), np.array(start, dtype=np.float64), STEP
    population = 4 + int(3 * math.log(count))
    shares = np.log((population + 1) / 2) - np.log(np.arange(1, population // 2 + 1))
    shares /= shares.sum()
    effective = 1 / float((shares**2).sum())
    of_size, of_path = (
        (effective + 2) / (count + effective + 5),
        (4 + effective / count) / (count + 4 + 2 * effective / count),
    )
    rank_one = 2 / ((count + 1.3) ** 2 + effective)
    rank_many = min(1 - rank_one, 2 * (effective - 2 + 1 / effective) / ((count + 2) ** 2 + effective))
    damping = 1 + 2 * max(0.0, math.sqrt((effective - 1) / (count + 1)) - 1) + of_size
    expected = math.sqrt(count) * (1 - 1 / (4 * count) + 1 / (21 * count**2))
    covariance, size_path, path = np.eye(count), np.zeros(count), np.zeros(count)
    best, lowest, made, generation = mean, loss(mean), 1, 0
    while made < tries:
        values, axes = np.linalg.eigh(covariance)
        root = np.sqrt(np.maximum(values, 1e-20))
        few = min(population, tries - made)
        points = np.clip(mean + size * draws.standard_normal((few, count)) * root @ axes.T, -bound, bound)
        losses: Any = np.array([loss(point) for point in points])
        made, generation = made + few, generation + 1
        order = losses.argsort(kind="stable")
        if losses[order[0]] < lowest:
            best, lowest = points[order[0]], float(losses[order[0]])
        if few < population:
            break
        steps = (points[order[: len(shares)]] - mean) / size
        move = shares @ steps
        mean = mean + size * move
        whitened = axes @ ((axes.T @ move) / root)
        size_path = (1 - of_size) * size_path + math.sqrt(of_size * (2 - of_size) * effective) * whitened
        long = float(np.linalg.norm(size_path)) / math.sqrt(1 - (1 - of_size) ** (2 * generation))
        calm = long < (1.4 + 2 / (count + 1)) * expected
        path = (1 - of_path) * path + calm * math.sqrt(of_path * (2 - of_path) * effective) * move
        kept = 1 - rank_one - rank_many + (0 if calm else rank_one * of_path * (2 - of_path))
        covariance = kept * covariance + rank_one * np.outer(path, path) + rank_many * (steps.T * shares) @ steps
        size *= math.exp(of_size / damping * (float(np.linalg.norm(size_path)) / expected - 1))
    return best, lowest
