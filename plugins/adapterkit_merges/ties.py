"""TIES: trim, elect a sign, take the mean of what agrees."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

from torch import Tensor  # noqa: TC002

from .consensus import agree
from .options import Majority, Normalize, Vote, check
from .pruning import trim

__all__ = ["ties"]


def ties(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    density: float = 0.2,
    majority_sign_method: Majority = "total",
    vote: Vote = "weighted",
    normalize: Normalize = "weights",
    scaling: float = 1.0,
) -> Tensor:
    """Keep the ``density`` largest values of each, then ``scaling`` times the weighted mean of those with the majority's sign.

    Yadav et al. 2023, arXiv 2306.01708. Good for several adapters that pull the same weights in opposite directions. Values
    are trimmed in each weight by itself, as PEFT and mergekit do; the paper ranks those of the whole model together.

    As it is, it is mergekit's ``ties``; ``vote="equal", normalize="count"`` is PEFT's, where the mean of two adapters of the
    weight 0.5 is half as large.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: One for each.
        density: The part of each change's values that is kept.
        majority_sign_method: Whether the ``"total"`` of the values decides a sign, or its ``"frequency"``.
        vote: Whether signs are decided with the weights, ``"weighted"``, or without, ``"equal"``.
        normalize: What a sum is divided by: the sizes of the ``"weights"`` that agree, their ``"count"``, or ``"none"``.
        scaling: The paper's lambda: what the result is multiplied by.
    """
    check(
        "ties",
        density=density,
        scaling=scaling,
        majority_sign_method=majority_sign_method,
        vote=vote,
        normalize=normalize,
    )
    kept = [trim(delta, density) for delta in deltas]
    return agree(kept, weights, majority_sign_method, vote, normalize, scaling)
