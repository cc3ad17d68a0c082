"""Strategies that lose nothing: the weighted sum of the changes, as a Blend makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adapterkit import LowRank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["cat", "linear", "svd"]

NOTHING = 1e-8
"""Directions that hold less than this part of an update are zero: float32 rounds more away."""


def cat(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """The factors one after another, weights and scales in ``up``; the rank is the sum of the ranks."""
    down = torch.cat([one.down.float() for one in updates])
    up = [one.up.double() * (one.scale * weight) for one, weight in zip(updates, weights, strict=True)]
    return LowRank(down, torch.cat(up, dim=1).float(), 1.0)


def svd(updates: Sequence[LowRank], weights: Sequence[float], *, rank: int | None = None) -> LowRank:
    """The best update of ``rank`` directions for the sum (Eckart and Young 1936); without a rank, of as many as there are.

    The matrix itself is never made: of the QR decompositions of both stacked factors the triangles suffice, with an SVD of the
    small core between them, in float64.
    """
    whole = cat(updates, weights)
    up, down = whole.up.double(), whole.down.double().T
    left, right = torch.linalg.qr(up, mode="r").R, torch.linalg.qr(down, mode="r").R
    u, s, vh = torch.linalg.svd(left @ right.T)
    lost = s.square().flip(0).cumsum(0).flip(0).sqrt()  # when all directions from here on are dropped
    kept = max(1, min(int((lost > NOTHING * lost[0]).sum()), rank or len(s)))
    root = torch.where(s > 0, s.rsqrt(), 0.0)[:kept]
    # the singular vectors times s are up @ right.T @ v and down @ left.T @ u
    return LowRank(
        (down @ (left.T @ (u[:, :kept] * root))).T.float(), (up @ (right.T @ (vh[:kept].T * root))).float(), 1.0
    )


def linear(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of whole changes."""
    total = torch.zeros(deltas[0].shape, dtype=torch.float64)
    for delta, weight in zip(deltas, weights, strict=True):
        total += delta.double() * weight
    return total.float()
