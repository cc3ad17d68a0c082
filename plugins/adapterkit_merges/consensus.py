"""One sign for each value, and the mean of what has it: the second half of TIES (arXiv 2306.01708, section 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .options import Majority, Normalize, Vote

__all__ = ["agree", "weighted_sum"]

AT_ONCE = 2**18
"""How many places are looked at together, so that what is made on the way stays in the processor's cache."""


def weighted_sum(deltas: Iterable[Tensor], weights: Sequence[float], scaling: float = 1.0) -> Tensor:
    """``scaling`` times the sum of each change times its weight; changes may be made one by one, as they are asked for."""
    merged: Tensor | None = None
    for delta, weight in zip(deltas, weights, strict=True):
        merged = torch.zeros_like(delta) if merged is None else merged
        merged.add_(delta, alpha=scaling * weight)
    if merged is None:
        raise ValueError("there are no changes to add up")
    return merged


def agree(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    majority_sign_method: Majority,
    vote: Vote,
    normalize: Normalize,
    scaling: float,
) -> Tensor:
    """Of the values that several changes have at a place, the weighted mean or sum of those with the majority's sign.

    A zero has no sign, and counts nowhere. Where neither sign wins, the positive one is taken.
    """
    merged = torch.empty_like(deltas[0])
    whole, target = [delta.reshape(-1) for delta in deltas], merged.view(-1)
    for start in range(0, len(target), AT_ONCE):
        part = [delta[start : start + AT_ONCE] for delta in whole]
        target[start : start + AT_ONCE] = _agree(part, weights, majority_sign_method, vote, normalize)
    return merged.mul_(scaling)


def _agree(
    deltas: Sequence[Tensor], weights: Sequence[float], method: Majority, vote: Vote, normalize: Normalize
) -> Tensor:
    sides = [math.copysign(1.0, weight) * (weight != 0) if vote == "weighted" else 1.0 for weight in weights]
    majority = _majority(deltas, weights if vote == "weighted" else sides, sides, method)
    merged, divisor = torch.zeros_like(majority), torch.zeros_like(majority)
    for delta, weight, side in zip(deltas, weights, sides, strict=True):
        agrees = delta * majority * side > 0
        merged.add_(delta * agrees, alpha=weight)
        # mergekit 0.1.5 adds the weights themselves, PEFT 0.21 ones. The sizes of the weights give the same where all are
        # positive; where one is negative, mergekit's quotient turns round what only that one changes: at weights 1 and -0.5
        # it adds the second change where it should be taken away.
        divisor.add_(agrees, alpha=abs(weight) if normalize == "weights" else 1.0)
    return merged if normalize == "none" else merged.div_(divisor.masked_fill_(divisor == 0, 1.0))


def _majority(deltas: Sequence[Tensor], weights: Sequence[float], sides: Sequence[float], method: Majority) -> Tensor:
    """1 or -1 for each place."""
    votes = torch.zeros_like(deltas[0])
    for delta, weight, side in zip(deltas, weights, sides, strict=True):
        if method == "total":
            votes.add_(delta, alpha=weight)
        else:
            votes.add_(delta.sign(), alpha=side)
    return (votes >= 0).to(votes.dtype).mul_(2).sub_(1)
