"""Strategies that lose nothing: the weighted sum of the changes, as a Blend makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adapterkit import LowRank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["cat", "linear", "svd"]


def cat(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """The factors one after another, weights and scales in ``up``; the rank is the sum of the ranks."""
    return LowRank.stacked(updates, weights)


def svd(updates: Sequence[LowRank], weights: Sequence[float], *, rank: int | None = None) -> LowRank:
    """The best update of ``rank`` directions for the sum (Eckart and Young 1936); without a rank, of as many as there are."""
    return LowRank.stacked(updates, weights).cut(rank)


def linear(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of whole changes."""
    total = torch.zeros(deltas[0].shape, dtype=torch.float64)
    for delta, weight in zip(deltas, weights, strict=True):
        total += delta.double() * weight
    return total.float()
