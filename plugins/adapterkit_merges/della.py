"""DELLA: drop values by chance, small ones more often."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch  # noqa: TC002
from torch import Tensor  # noqa: TC002

from .consensus import agree, weighted_sum
from .options import Majority, Normalize, Rescale, Vote, check
from .pruning import drop_small

__all__ = ["della", "della_linear"]


def della(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    generator: torch.Generator,
    density: float = 0.5,
    epsilon: float = 0.15,
    rescale: Rescale = "probability",
    majority_sign_method: Majority = "total",
    vote: Vote = "weighted",
    normalize: Normalize = "weights",
    scaling: float = 1.0,
) -> Tensor:
    """Drop as ``della_linear`` does, then ``scaling`` times the weighted mean of the values with the majority's sign.

    Deep et al. 2024, arXiv 2406.11617. Good where DARE is, at a lower density. ``rescale="l1"`` is mergekit 0.1's.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        generator: What chance is drawn from, for one change after the other.
        density: As for ``della_linear``; so are ``epsilon`` and ``rescale``.
        epsilon: How far chances go to both sides.
        rescale: What makes up for dropped values.
        majority_sign_method: As for ``ties``; so are ``vote`` and ``normalize``.
        vote: Whose values decide a sign.
        normalize: What a sum is divided by.
        scaling: The paper's lambda: what the result is multiplied by.
    """
    chosen = {"majority_sign_method": majority_sign_method, "vote": vote, "normalize": normalize, "rescale": rescale}
    check("della", _room(density, epsilon), density=density, epsilon=epsilon, scaling=scaling, **chosen)
    kept = [drop_small(delta, density, epsilon, rescale, generator) for delta in deltas]
    return agree(kept, weights, majority_sign_method, vote, normalize, scaling)


def della_linear(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    generator: torch.Generator,
    density: float = 0.5,
    epsilon: float = 0.15,
    rescale: Rescale = "probability",
    scaling: float = 1.0,
) -> Tensor:
    """``scaling * sum(weight * drop(delta))``; in each row ``drop`` keeps the smallest value least often, the largest most.

    Deep et al. 2024, arXiv 2406.11617, MAGPRUNE. In the mean over seeds it is ``task_arithmetic``. Good where
    ``dare_linear`` is, at a lower density.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        generator: What chance is drawn from, for one change after the other.
        density: The mean chance of a value to be kept; at 1 all are.
        epsilon: The smallest of a row has the chance ``density - epsilon``, the largest ``density + epsilon``, the others
            by their rank in between. As mergekit has it: the paper's epsilon is the whole width, twice as much.
        rescale: As for ``dare_linear``.
        scaling: What the sum is multiplied by.
    """
    room = _room(density, epsilon)
    check("della_linear", room, density=density, epsilon=epsilon, rescale=rescale, scaling=scaling)
    return weighted_sum((drop_small(delta, density, epsilon, rescale, generator) for delta in deltas), weights, scaling)


def _room(density: float, epsilon: float) -> str | None:
    if density == 1 or 0 < density - epsilon <= density + epsilon <= 1:
        return None
    most = min(density, 1 - density)
    return f"epsilon: with a density of {density} it must be below {most:g}, so that chances are above 0, and at most 1"
