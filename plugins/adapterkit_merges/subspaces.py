"""Alignment: changes in axes that they share, so that values at the same place mean the same; KnOTS and Core Space.

Nothing here is as large as a weight: four updates of rank 16 of a 4096 x 4096 weight are 64 x 4096 numbers each for KnOTS, and
64 x 64 for Core Space, instead of 17 million.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch
from torch import Tensor

from adapterkit import LowRank

from .consensus import weighted_sum
from .dare import dare_ties
from .options import Inside, Majority, Normalize, check
from .ties import ties

__all__ = ["core_space", "knots"]

NOISE = 1e-6
"""Axes that are weaker than the strongest by this factor are what rounding left of float32 factors."""


def knots(
    updates: Sequence[LowRank],
    weights: Sequence[float],
    *,
    generator: torch.Generator,
    inside: Inside = "ties",
    density: float = 0.2,
    majority_sign_method: Majority = "total",
    normalize: Normalize = "weights",
    scaling: float = 1.0,
) -> LowRank:
    """``U @ merge(U.T @ delta, ...)``, where ``U S V`` is the SVD of all changes side by side: the outputs that they share.

    Stoica et al. 2024, arXiv 2410.19735. Good for LoRAs of different tasks, whose values do not line up as those of full
    fine-tunes do; the paper's best is ``ties`` inside. Its rank is the sum of the ranks.

    Args:
        updates: Each adapter's change.
        weights: One for each.
        generator: What chance is drawn from, with ``dare_ties`` inside.
        inside: What merges the aligned changes. ``"linear"`` is ``task_arithmetic``: aligning alters no sum.
        density: As for what is inside, of the aligned values.
        majority_sign_method: As for ``ties``; so is ``normalize``.
        normalize: What a sum is divided by.
        scaling: What the result is multiplied by.
    """
    chosen = {"inside": inside, "majority_sign_method": majority_sign_method, "normalize": normalize}
    check("knots", density=density, scaling=scaling, **chosen)
    ups, downs = _factors(updates)
    written = _axes(torch.cat(ups, dim=1))
    parts = [(written.T @ up) @ down for up, down in zip(ups, downs, strict=True)]
    turned = _axes(torch.cat(parts, dim=1))
    aligned = [turned.T @ part for part in parts]
    merged = _merged(inside, aligned, weights, generator, density, majority_sign_method, normalize, scaling)
    return LowRank(down=merged.float(), up=(written @ turned).float(), scale=1.0)


def core_space(
    updates: Sequence[LowRank],
    weights: Sequence[float],
    *,
    generator: torch.Generator,
    inside: Inside = "ties",
    density: float = 0.2,
    majority_sign_method: Majority = "total",
    normalize: Normalize = "weights",
    scaling: float = 1.0,
) -> LowRank:
    """``U @ merge(U.T @ delta @ V, ...) @ V.T``: ``U`` spans what all updates write, ``V`` what they read.

    Panariello et al. 2025, arXiv 2509.17786. Good for LoRAs of different tasks, as ``knots``, with less to compute. Its rank
    is the sum of the ranks.

    Args:
        updates: Each adapter's change.
        weights: One for each.
        generator: What chance is drawn from, with ``dare_ties`` inside.
        inside: What merges the aligned changes. ``"linear"`` is ``task_arithmetic``: aligning alters no sum.
        density: As for what is inside, of the aligned values.
        majority_sign_method: As for ``ties``; so is ``normalize``.
        normalize: What a sum is divided by.
        scaling: What the result is multiplied by.
    """
    chosen = {"inside": inside, "majority_sign_method": majority_sign_method, "normalize": normalize}
    check("core_space", density=density, scaling=scaling, **chosen)
    ups, downs = _factors(updates)
    written, read = _axes(torch.cat(ups, dim=1)), _axes(torch.cat(downs).T)
    cores = [(written.T @ up) @ (down @ read) for up, down in zip(ups, downs, strict=True)]
    merged = _merged(inside, cores, weights, generator, density, majority_sign_method, normalize, scaling)
    return LowRank(down=(merged @ read.T).float(), up=written.float(), scale=1.0)


def _factors(updates: Sequence[LowRank]) -> tuple[list[Tensor], list[Tensor]]:
    """All ``up`` and all ``down``, of one size in each update: the papers take them as they are, and axes depend on their sizes."""
    balanced = [update.cut() for update in updates]
    return [one.up.double() for one in balanced], [one.down.double() for one in balanced]


def _axes(matrix: Tensor) -> Tensor:
    """Orthonormal axes of what its columns span, the strongest first; one at least."""
    vectors: Tensor
    vectors, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    return vectors[:, : max(1, int((sizes > NOISE * sizes[:1]).sum()))]


def _merged(
    inside: Inside,
    aligned: Sequence[Tensor],
    weights: Sequence[float],
    generator: torch.Generator,
    density: float,
    majority_sign_method: Majority,
    normalize: Normalize,
    scaling: float,
) -> Tensor:
    if inside == "linear":
        return weighted_sum(aligned, weights, scaling)
    if inside == "dare_ties":
        return dare_ties(
            aligned,
            weights,
            generator=generator,
            density=density,
            majority_sign_method=majority_sign_method,
            normalize=normalize,
            scaling=scaling,
        )
    return ties(
        aligned,
        weights,
        density=density,
        majority_sign_method=majority_sign_method,
        normalize=normalize,
        scaling=scaling,
    )
