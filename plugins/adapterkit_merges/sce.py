"""SCE: select, calculate, erase."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch
from torch import Tensor

from .consensus import agree
from .options import check, check_equal
from .pruning import largest

__all__ = ["sce"]

AT_ONCE = 2**20
"""How many places are looked at together: they take eight bytes for each change."""


def sce(
    deltas: Sequence[Tensor], weights: Sequence[float], *, select_topk: float = 1.0, scaling: float = 1.0
) -> Tensor:
    """``scaling`` times the mean of the values with the majority's sign, each change weighted by its mean square.

    Wan et al. 2024, arXiv 2408.07990. Good for adapters of unequal strength: the stronger one counts more in each weight.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``.
        weights: None, or the same for each: the changes' sizes say how much they count.
        select_topk: The part of the places that is kept: those where the changes vary most, of all where they vary.
        scaling: What the result is multiplied by.
    """
    check("sce", select_topk=select_topk, scaling=scaling)
    check_equal("sce", weights, "sizes say how much each counts")
    if select_topk < 1:
        spread = _variance(deltas)
        kept = largest(spread, int(int(spread.count_nonzero()) * select_topk))
        deltas = [delta * kept for delta in deltas]
    sizes = [float(delta.square().sum(dtype=torch.float64)) for delta in deltas]
    return agree(deltas, sizes if sum(sizes) > 0 else weights, "total", "equal", "weights", scaling)


def _variance(deltas: Sequence[Tensor]) -> Tensor:
    """Of each place over the changes; in float64, so that it is zero where they are equal."""
    parts = zip(*(torch.split(delta.reshape(-1), AT_ONCE) for delta in deltas), strict=True)
    spread = [torch.stack(part).double().var(dim=0, correction=0).float() for part in parts]
    return torch.cat(spread).view_as(deltas[0])
