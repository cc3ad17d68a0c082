"""SCE: select, calculate, erase."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch
from torch import Tensor

from .consensus import agree
from .options import check, check_equal
from .pruning import largest

__all__ = ["sce"]


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
    mean = sum(deltas[1:], deltas[0]) / len(deltas)
    variance = torch.zeros_like(mean)
    for delta in deltas:
        variance.add_((delta - mean).square_(), alpha=1 / len(deltas))
    return variance
