"""Model Stock: how far to go from the base to the mean, read from the angles between the changes."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the engine reads the annotations

import torch
from torch import Tensor

from .consensus import weighted_sum
from .options import check, check_equal
from .products import products, products_by_row

__all__ = ["model_stock"]


def model_stock(deltas: Sequence[Tensor], weights: Sequence[float], *, filter_wise: bool = False) -> Tensor:
    """``t * mean(delta)`` with ``t = n c / (1 + (n - 1) c)``, where ``c`` is the mean cosine between two changes.

    Jang et al. 2024, arXiv 2403.19522. Good for few runs of one task, where it does what a soup of many does; adapters of
    different tasks are nearly at right angles, and little is left of them. The base itself is not needed: it is the point
    that changes start from.

    Args:
        deltas: Each adapter's change, ``(out_features, in_features)``; two or more.
        weights: None, or the same for each: angles say how much they count.
        filter_wise: Whether each row has a ``t`` of its own, or there is one for the whole weight.
    """
    few = None if len(deltas) > 1 else "adapters: an angle needs two or more, not one"
    check("model_stock", few)
    check_equal("model_stock", weights, "angles say how much each counts")
    by_row = filter_wise and deltas[0].dim() > 1
    cosine = _mean_cosine(products_by_row(deltas) if by_row else products(deltas))
    # Below 0 the formula goes past the base, to the other side (mergekit 0.1.5: t = -2 for two at a cosine of -0.5), and for
    # n changes that add up to nothing it is a quotient of zeros.
    cosine = cosine.clamp_(min=0)
    count = len(deltas)
    mean = weighted_sum(deltas, [1 / count] * count)
    t = (count * cosine / (1 + (count - 1) * cosine)).to(mean)
    return mean.mul_(t.view(-1, *[1] * (mean.dim() - 1)) if by_row else t)


def _mean_cosine(table: Tensor) -> Tensor:
    """The mean over all pairs, of a table of products or of each of several; whatever is zero is at right angles to all."""
    lengths = table.diagonal(dim1=-2, dim2=-1).sqrt()
    # mergekit 0.1.5 takes products of lengths below 1e-6 for 1e-6: rows that a LoRA changes by a length of 3e-4 are at an
    # eleventh of their cosine there
    both = lengths[..., :, None] * lengths[..., None, :]
    cosines = table / torch.where(both > 0, both, 1)
    count = table.shape[-1]
    others = cosines.sum(dim=(-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return (others / (count * (count - 1))).clamp(-1, 1)
