"""The best factors of a rank: of a matrix, by randomised SVD, or of a product of other factors, exactly.

The sketch is a block Krylov space (Musco and Musco 2015, arXiv 1504.05477): of a random start Ω (Halko et al. 2011,
arXiv 0909.4061) it keeps ``AΩ, (AAᵀ)AΩ, …, (AAᵀ)³AΩ``, each block made orthonormal, and takes the SVD of what the matrix is within
all of them. On a flat spectrum, where plain power iterations are at their worst, it comes closer to the optimum in the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Factors", "cut_factors", "nonzero", "of_rank", "within_error"]

OVERSAMPLING = 8
KRYLOV_STEPS = 3
FIRST_WIDTH = 16
ZERO = 1e-8
"""Directions that hold less than this part of a matrix are zero: float32 rounds more away."""
SURE = 1e-2
"""Relative errors below it are computed from the difference: in float32 the singular values no longer tell them from rounding."""


@attrs.frozen(eq=False)
class Factors:
    """``up @ down``, each with the square roots of the singular values in it.

    Attributes:
        down: ``(rank, in_features)``.
        up: ``(out_features, rank)``.
        error: How far it is from the matrix, relative to the matrix: Frobenius norms.
    """

    down: Tensor
    up: Tensor
    error: float

    @property
    def rank(self) -> int:
        """How many directions were kept."""
        return self.down.shape[0]


def cut_factors(up: Tensor, down: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """``(up, down)`` of the best matrix of at most ``rank`` directions for ``up @ down`` (Eckart and Young 1936), in float64.

    The product itself is never made: of the QR decompositions of both factors the triangles suffice, with an SVD of the small core
    between them, ``O((out + in) rank²)``. Directions that are zero are dropped; where ``rank`` is None nothing else is.

    Args:
        up: ``(out_features, n)``.
        down: ``(n, in_features)``.
        rank: The most directions.
    """
    up, down = up.double(), down.double().T
    left, right = torch.linalg.qr(up, mode="r").R, torch.linalg.qr(down, mode="r").R
    u, s, vh = torch.linalg.svd(left @ right.T, full_matrices=False)
    kept = nonzero(s, rank)
    root = torch.where(s > 0, s.rsqrt(), 0.0)[:kept]
    # the singular vectors times s are up @ right.T @ v and down @ left.T @ u: neither needs the tall factor of its QR
    return up @ (right.T @ (vh[:kept].T * root)), (down @ (left.T @ (u[:, :kept] * root))).T


def nonzero(s: Tensor, rank: int | None = None) -> int:
    """How many of the singular values ``s`` are kept, ``rank`` at most; one at least where there are any."""
    tail = s.square().flip(0).cumsum(0).flip(0).sqrt()  # what is lost when all from here on are dropped
    there = int((tail > ZERO * tail[:1]).sum())
    return max(min(there, rank or there), min(1, len(s)))


def of_rank(matrix: Tensor, rank: int, generator: torch.Generator) -> Factors:
    """A matrix, ``(out_features, in_features)`` and not zero, by its ``rank`` largest directions, or by all it has."""
    rank = min(rank, *matrix.shape)
    u, s, v = _svd(matrix, rank + OVERSAMPLING, generator)
    return _factors(matrix, u[:, :rank], s[:rank], v[:, :rank])


def within_error(matrix: Tensor, max_error: float, generator: torch.Generator) -> Factors:
    """A matrix by the fewest directions whose relative error is at most ``max_error``.

    The sketch is widened until it holds more directions than are needed, and the error is known exactly: what the kept singular
    values leave of the squared norm.
    """
    width = FIRST_WIDTH
    while True:
        u, s, v = _svd(matrix, width + OVERSAMPLING, generator)
        rank = _needed(matrix, s, max_error)
        if rank <= width or len(s) == min(matrix.shape):
            break
        width *= 2
    rank = min(rank, len(s))
    found = _factors(matrix, u[:, :rank], s[:rank], v[:, :rank])
    while found.error > max_error and rank < len(s):  # rounding has hidden a direction
        rank += 1
        found = _factors(matrix, u[:, :rank], s[:rank], v[:, :rank])
    return found


def _svd(matrix: Tensor, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """``(u, s, v)``: the largest directions of ``matrix``, about ``width`` of them well; all of them where that is no dearer."""
    if width * (KRYLOV_STEPS + 1) >= min(matrix.shape):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, vh.T
    # blocks lie in rows: on a CPU a thin matrix from the left is multiplied in half the time of one from the right
    block = _orthonormal(torch.randn(width, matrix.shape[1], generator=generator).to(matrix.dtype) @ matrix.T)
    blocks = [block]
    for _ in range(KRYLOV_STEPS):
        block = _orthonormal(_orthonormal(block @ matrix) @ matrix.T)
        blocks.append(block)
    basis = _orthonormal(torch.cat(blocks))
    v, core = torch.linalg.qr((basis @ matrix).T)
    left, s, right = torch.linalg.svd(core.T)
    return basis.T @ left, s, v @ right.T


def _orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same."""
    q: Tensor = torch.linalg.qr(rows.T).Q
    return q.T.contiguous()


def _needed(matrix: Tensor, s: Tensor, max_error: float) -> int:
    """The fewest of these singular values that leave no more than the error; one more than there are where all do not suffice."""
    total = _squared(matrix)
    left = total - s.double().square().cumsum(0)
    return 1 + int((left > max_error**2 * total).sum())


def _factors(matrix: Tensor, u: Tensor, s: Tensor, v: Tensor) -> Factors:
    total, root = _squared(matrix), s.sqrt()
    down, up = (v * root).T.contiguous(), (u * root).contiguous()
    left = max(0.0, 1.0 - float(s.double().square().sum()) / total) ** 0.5
    if left < SURE:
        left = float(torch.linalg.vector_norm(torch.addmm(matrix, up, down, alpha=-1))) / total**0.5
    return Factors(down, up, left)


def _squared(matrix: Tensor) -> float:
    """The squared Frobenius norm; row by row in float32, the rows added up in float64."""
    return float(torch.linalg.vector_norm(matrix, dim=1).double().square().sum())
