"""Sums and means of changes as they are, exact in the factors; and a sum of their largest values."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

from torch import Tensor  # noqa: TC002

from adapterkit import LowRank

from .consensus import weighted_sum
from .options import check, shares
from .pruning import trim

__all__ = ["magnitude_prune", "soup", "task_arithmetic"]


def task_arithmetic(updates: Sequence[LowRank], weights: Sequence[float], *, scaling: float = 1.0) -> LowRank:
    """``scaling * sum(weight * delta)``: add skills, or take one away by a negative weight.

    Ilharco et al. 2022, arXiv 2212.04089. Exact: its rank is the sum of the ranks. Good for few adapters that change
    different things; with many of them the sum grows too large, and a ``scaling`` below 1 helps.

    Args:
        updates: Each adapter's change.
        weights: One for each.
        scaling: The paper's lambda: what the sum is multiplied by.
    """
    check("task_arithmetic", scaling=scaling)
    return LowRank.stacked(updates, [scaling * weight for weight in weights])


def soup(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """``sum(weight * delta) / sum(weight)``: the mean; with equal weights the uniform soup.

    Wortsman et al. 2022, arXiv 2203.05482. Exact. Good for runs of one task with other seeds or options; of different tasks
    each keeps only its share.

    Args:
        updates: Each adapter's change.
        weights: One for each; only their proportions count.
    """
    return LowRank.stacked(updates, shares("soup", weights))


def magnitude_prune(
    deltas: Sequence[Tensor], weights: Sequence[float], *, density: float = 0.5, scaling: float = 1.0
) -> Tensor:
    """``scaling * sum(weight * trim(delta))``, where ``trim`` keeps the ``density`` largest values.

    PEFT's strategy of this name. Good for taking noise out of each change before they are added.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        density: The part of each change's values that is kept, of this weight's alone.
        scaling: What the sum is multiplied by.
    """
    check("magnitude_prune", density=density, scaling=scaling)
    return weighted_sum((trim(delta, density) for delta in deltas), weights, scaling)
