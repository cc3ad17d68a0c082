"""Inner products of changes: all that angles need, in float64, since of that they need all digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["products", "products_by_row"]

AT_ONCE = 2**20
"""How many values of each are multiplied at once: they take eight bytes."""


def products(deltas: Sequence[Tensor], origin: Tensor | None = None) -> Tensor:
    """The product of each with each, ``(n, n)``; of each plus ``origin``, where there is one."""
    table = torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    for start in range(0, deltas[0].numel(), AT_ONCE):
        here = torch.stack([delta.reshape(-1)[start : start + AT_ONCE] for delta in deltas]).double()
        if origin is not None:
            here += origin.reshape(-1)[start : start + AT_ONCE]
        table += (here @ here.T).cpu()
    return table


def products_by_row(deltas: Sequence[Tensor]) -> Tensor:
    """The same for each row by itself, ``(rows, n, n)``."""
    rows = [delta.flatten(1) for delta in deltas]
    at_once = max(1, AT_ONCE // max(1, rows[0].shape[1]))
    tables = [torch.zeros(0, len(deltas), len(deltas), dtype=torch.float64)]
    for start in range(0, len(rows[0]), at_once):
        here = torch.stack([delta[start : start + at_once] for delta in rows], dim=1).double()
        tables.append((here @ here.mT).cpu())
    return torch.cat(tables)
