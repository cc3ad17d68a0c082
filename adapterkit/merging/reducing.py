"""Whole changes of a weight: their sum, and the best update of a rank; and how far changes are from one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapterkit.effects import LowRank
from adapterkit.lowrank import nonzero, of_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cut_dense", "distance", "norm", "summed"]

ROUNDING = 1e-7
"""The part of factors that float32 rounds away."""
SMALL = 1024
"""Up to this many rows or columns a whole change is cut in float64."""


def summed(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum, added up in float64, in float32."""
    total = torch.zeros(tensors[0].shape, dtype=torch.float64)
    for one, weight in zip(tensors, weights, strict=True):
        total += one.double() * weight
    return total.float()


def cut_dense(delta: Tensor, rank: int) -> LowRank:
    """The best update of at most ``rank`` directions for a whole change ``(out_features, in_features)``, in float32.

    Of a large one it is found by a randomised SVD (:func:`adapterkit.lowrank.of_rank`), whose random numbers are always the same.
    """
    matrix = delta.double() if min(delta.shape) <= SMALL else delta.float()
    if not matrix.any():
        return LowRank(torch.zeros(1, delta.shape[1]), torch.zeros(delta.shape[0], 1), 1.0)
    found = of_rank(matrix, rank, torch.Generator().manual_seed(0))
    kept = nonzero(found.down.square().sum(dim=1))
    return LowRank(found.down[:kept].float(), found.up[:, :kept].float(), 1.0)


def norm(change: LowRank | Tensor) -> float:
    """The Frobenius norm of a change; of factors by their Gram matrices in float64."""
    if isinstance(change, Tensor):
        return float(torch.linalg.vector_norm(change, dtype=torch.float64))
    return math.sqrt(max(_product(change, change), 0.0))


def distance(one: LowRank | Tensor, other: LowRank, size: float) -> float:
    """The Frobenius norm of the difference of two changes; zero where that is what float32 rounds away of their factors.

    Args:
        one: The first change.
        other: The second.
        size: The norm of the first.
    """
    if isinstance(one, Tensor):
        return norm(torch.addmm(one.float(), other.up.float(), other.down.float(), alpha=-other.scale))
    square = size**2 - 2.0 * _product(one, other) + _product(other, other)
    terms = abs(one.scale) * norm(one.up) * norm(one.down)
    found = math.sqrt(max(square, 0.0))
    return found if found > ROUNDING * terms else 0.0


def _product(one: LowRank, other: LowRank) -> float:
    """The sum of the products of the numbers of two updates."""
    ups = one.up.double().T @ other.up.double()
    downs = one.down.double() @ other.down.double().T
    return float((ups * downs).sum()) * one.scale * other.scale
