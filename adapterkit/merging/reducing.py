"""Sums of changes of a weight, and the best change of a lower rank, without ever making the whole matrix of factors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapterkit.effects import LowRank

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cut", "cut_dense", "distance", "norm", "stacked", "summed"]

EXACT = 1e-8
"""Directions that hold less than this part of an update are zero: float32 rounds more away."""
ROUNDING = 1e-7
"""The part of factors that float32 rounds away."""
WHOLE = 1024
"""Up to this many rows or columns the whole SVD of a matrix is made."""
MORE, PASSES = 16, 8
"""How many directions more than asked for, and how many times back and forth, the randomised SVD takes."""


def stacked(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """The weighted sum as one update, exactly: factors one after another, weights and scales in ``up``, in float32."""
    down = torch.cat([one.down.float() for one in updates])
    scaled = [one.up.double() * (one.scale * weight) for one, weight in zip(updates, weights, strict=True)]
    return LowRank(down, torch.cat(scaled, dim=1).float(), 1.0)


def summed(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum, added up in float64, in float32."""
    total = torch.zeros(tensors[0].shape, dtype=torch.float64)
    for one, weight in zip(tensors, weights, strict=True):
        total += one.double() * weight
    return total.float()


def cut(update: LowRank, rank: int | None = None) -> LowRank:
    """The best update of at most ``rank`` directions (Eckart and Young 1936), in float32, its scale 1.

    By the triangular factors of both QR decompositions and an SVD of the small core between them, in float64:
    ``O((out + in) rank²)``. Directions that are zero to ``EXACT`` are dropped; where ``rank`` is None nothing else is.
    """
    up, down = update.up.double(), update.down.double().T
    left, right = torch.linalg.qr(up, mode="r").R, torch.linalg.qr(down, mode="r").R
    u, s, vh = torch.linalg.svd(left @ right.T * update.scale, full_matrices=False)
    kept = _kept(s, rank)
    root = torch.where(s > 0, s.rsqrt(), 0.0)[:kept] * update.scale
    # the singular vectors times s are up @ right.T @ v and down @ left.T @ u: neither needs the tall factor of its QR
    return LowRank(
        (down @ (left.T @ (u[:, :kept] * root))).T.float(), (up @ (right.T @ (vh[:kept].T * root))).float(), 1.0
    )


def _kept(s: Tensor, rank: int | None) -> int:
    """How many of the singular values ``s`` are kept; one at least."""
    tail = s.square().flip(0).cumsum(0).flip(0).sqrt()  # what is lost when all from here on are dropped
    nonzero = int((tail > EXACT * tail[:1]).sum()) if len(s) else 0
    return max(min(nonzero, rank or nonzero), min(1, len(s)))


def cut_dense(delta: Tensor, rank: int) -> LowRank:
    """The best update of ``rank`` directions for a whole change ``(out_features, in_features)``, in float32.

    By SVD; of large matrices by a randomised one with power iterations (Halko et al. 2011, arXiv 0909.4061, algorithm 4.4),
    whose random numbers are always the same.
    """
    wide = rank + MORE
    if min(delta.shape) <= max(WHOLE, 2 * wide):
        u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    else:
        probe = torch.randn(delta.shape[1], wide, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(delta @ probe).Q
        for _ in range(PASSES):
            basis = torch.linalg.qr(delta @ torch.linalg.qr(delta.T @ basis).Q).Q
        core, s, vh = torch.linalg.svd(basis.T @ delta, full_matrices=False)
        u = basis @ core
    kept = _kept(s, rank)
    root = s[:kept].sqrt()
    return LowRank((root[:, None] * vh[:kept]).float(), (u[:, :kept] * root).float(), 1.0)


def norm(change: LowRank | Tensor) -> float:
    """The Frobenius norm of a change; of factors by their Gram matrices in float64."""
    if isinstance(change, Tensor):
        return float(torch.linalg.vector_norm(change, dtype=torch.float64))
    return math.sqrt(max(_product(change, change), 0.0))


def distance(one: LowRank | Tensor, other: LowRank) -> float:
    """The Frobenius norm of the difference of two changes; zero where that is what float32 rounds away of their factors."""
    if isinstance(one, Tensor):
        return norm(torch.addmm(one.float(), other.up.float(), other.down.float(), alpha=-other.scale))
    square = _product(one, one) - 2.0 * _product(one, other) + _product(other, other)
    terms = abs(one.scale) * norm(one.up) * norm(one.down)
    found = math.sqrt(max(square, 0.0))
    return found if found > ROUNDING * terms else 0.0


def _product(one: LowRank, other: LowRank) -> float:
    """The sum of the products of the numbers of two updates."""
    ups = one.up.double().T @ other.up.double()
    downs = one.down.double() @ other.down.double().T
    return float((ups * downs).sum()) * one.scale * other.scale
