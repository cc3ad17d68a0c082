"""Model Breadcrumbs: neither the smallest values nor the very largest."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

from torch import Tensor  # noqa: TC002

from .consensus import agree, weighted_sum
from .options import Majority, Normalize, Vote, check
from .pruning import trim_both

__all__ = ["breadcrumbs", "breadcrumbs_ties"]


def breadcrumbs(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    density: float = 0.9,
    gamma: float = 0.01,
    scaling: float = 1.0,
) -> Tensor:
    """``scaling * sum(weight * trim(delta))``, where ``trim`` drops the ``gamma`` largest values, and keeps ``density`` below.

    Davari and Belilovsky 2023, arXiv 2312.06795. Good for many adapters at once: outliers of one do not drown the others.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        density: The part of each change's values that is kept.
        gamma: The part that is dropped for being the largest. What is left of 1 is dropped for being the smallest.
        scaling: The paper's alpha: what the sum is multiplied by.
    """
    check("breadcrumbs", _room(density, gamma), density=density, gamma=gamma, scaling=scaling)
    return weighted_sum((trim_both(delta, density, gamma) for delta in deltas), weights, scaling)


def breadcrumbs_ties(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    density: float = 0.9,
    gamma: float = 0.01,
    majority_sign_method: Majority = "total",
    vote: Vote = "weighted",
    normalize: Normalize = "weights",
    scaling: float = 1.0,
) -> Tensor:
    """Keep what ``breadcrumbs`` keeps, then ``scaling`` times the weighted mean of the values with the majority's sign.

    mergekit's; the parts are of arXiv 2312.06795 and 2306.01708. Good for many adapters that are at odds.
    ``normalize="none"`` is what mergekit does unless told.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        density: As for ``breadcrumbs``.
        gamma: As for ``breadcrumbs``.
        majority_sign_method: As for ``ties``; so are ``vote`` and ``normalize``.
        vote: Whose values decide a sign.
        normalize: What a sum is divided by.
        scaling: What the result is multiplied by.
    """
    chosen = {"majority_sign_method": majority_sign_method, "vote": vote, "normalize": normalize}
    check("breadcrumbs_ties", _room(density, gamma), density=density, gamma=gamma, scaling=scaling, **chosen)
    kept = [trim_both(delta, density, gamma) for delta in deltas]
    return agree(kept, weights, majority_sign_method, vote, normalize, scaling)


def _room(density: float, gamma: float) -> str | None:
    # mergekit takes a smaller gamma then, and says nothing
    if density + gamma <= 1 + 1e-9:
        return None
    return f"gamma: with a density of {density} no more than {max(0.0, 1 - density):g} can be dropped, not {gamma}"
