"""DARE: drop most values by chance, and make up for them."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch  # noqa: TC002
from torch import Tensor  # noqa: TC002

from .consensus import agree, weighted_sum
from .options import Majority, Normalize, Rescale, Vote, check
from .pruning import drop

__all__ = ["dare_linear", "dare_ties"]

# "probability" is the paper's, PEFT's and mergekit 0.0.5's. mergekit 0.1.4 and 0.1.5 give each change the sum of sizes that it
# had ("l1"). Of 4096 x 4096 normal values at a density of 0.1 that factor is within 0.2% of the other (6 draws); of 64 such
# values it is larger by half in the mean (200 draws), so that what comes out is not what was dropped.


def dare_linear(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    generator: torch.Generator,
    density: float = 0.5,
    rescale: Rescale = "probability",
    scaling: float = 1.0,
) -> Tensor:
    """``scaling * sum(weight * drop(delta))``, where ``drop`` keeps each value with the chance ``density``, divided by it.

    Yu et al. 2023, arXiv 2311.03099. In the mean over seeds it is ``task_arithmetic``. Good for large changes with much that
    is redundant, as those of full fine-tunes are; a change of low rank does not stay so.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        generator: What chance is drawn from, for one change after the other.
        density: The chance of each value to be kept.
        rescale: What makes up for dropped values: division by the ``"probability"`` of being kept; one factor for each
            change, so that its ``"l1"`` norm is what it was, as in mergekit 0.1; or ``"none"``.
        scaling: What the sum is multiplied by.
    """
    check("dare_linear", density=density, rescale=rescale, scaling=scaling)
    return weighted_sum((drop(delta, density, rescale, generator) for delta in deltas), weights, scaling)


def dare_ties(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    generator: torch.Generator,
    density: float = 0.5,
    rescale: Rescale = "probability",
    majority_sign_method: Majority = "total",
    vote: Vote = "weighted",
    normalize: Normalize = "weights",
    scaling: float = 1.0,
) -> Tensor:
    """Drop as ``dare_linear`` does, then ``scaling`` times the weighted mean of the values with the majority's sign.

    Yu et al. 2023, arXiv 2311.03099, with the second half of TIES (arXiv 2306.01708). Good where changes are both redundant
    and at odds. ``rescale="l1", normalize="none"`` is what mergekit 0.1 does unless told; ``vote="equal",
    normalize="count"`` is PEFT's.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        generator: What chance is drawn from, for one change after the other.
        density: The chance of each value to be kept.
        rescale: As for ``dare_linear``.
        majority_sign_method: As for ``ties``; so are ``vote`` and ``normalize``.
        vote: Whose values decide a sign.
        normalize: What a sum is divided by.
        scaling: What the result is multiplied by.
    """
    chosen = {"majority_sign_method": majority_sign_method, "vote": vote, "normalize": normalize}
    check("dare_ties", density=density, rescale=rescale, scaling=scaling, **chosen)
    kept = [drop(delta, density, rescale, generator) for delta in deltas]
    return agree(kept, weights, majority_sign_method, vote, normalize, scaling)
