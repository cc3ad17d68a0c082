"""What effects add to the parameters of a site, a block of rows at a time, in the layout in which the base stores them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from adapterkit.effects import Bias, Dense, LowRank, Rows, Scale
from adapterkit.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from adapterkit.effects import Effect
    from adapterkit.sites import Site

    Parts = Sequence[tuple[Sequence[Effect], float]]

__all__ = ["blocks", "change", "changed_parameters", "rowed", "wide"]

BLOCK = 1 << 20
"""How many numbers are computed together: 4 MiB in float32, which stay in a cache from one step to the next."""


def changed_parameters(site: Site, parts: Parts) -> set[str]:
    """The names of the site's parameters that the parts may change.

    Raises:
        SelectionError: The site has no such parameter.
    """
    names = {name for effects, _ in parts for effect in effects for name in _changed(effect, site)}
    absent = sorted(names - set(site.parameters))
    if absent:
        raise SelectionError(f"{site.name!r} has no {absent[0]} to add the adapter's to")
    return names


def _changed(effect: Effect, site: Site) -> tuple[str, ...]:
    if isinstance(effect, Dense):
        return (effect.parameter,)
    if isinstance(effect, Bias):
        return ("bias",)
    scales_bias = isinstance(effect, Scale) and effect.side == "output" and "bias" in site.parameters
    return ("weight", "bias") if scales_bias else ("weight",)


def blocks(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of a tensor of this shape, so many at a time as make a block."""
    rows = shape[0] if shape else 1
    step = max(1, BLOCK // max(1, math.prod(shape[1:])))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def rowed(tensor: Tensor) -> Tensor:
    """With one dimension at least, and without a history."""
    return tensor.detach().reshape(tensor.shape or (1,))


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least, with one dimension at least."""
    return rowed(tensor).to(torch.promote_types(tensor.dtype, torch.float32))


def change(site: Site, name: str, own: Tensor, rows: slice, parts: Parts) -> Tensor:
    """What several adapters add to some rows of a parameter: each counted from the base alone, times its weight.

    Args:
        site: The site.
        name: The parameter.
        own: These rows of the base's own, see :func:`wide`.
        rows: Which they are.
        parts: The effects of each adapter here, and its weight.
    """
    total: Tensor | None = None
    for effects, weight in parts:
        mine = _change(site, name, own, rows, effects)
        total = mine.mul_(weight) if total is None else total.add_(mine, alpha=weight)
    return torch.zeros_like(own) if total is None else total


def _change(site: Site, name: str, own: Tensor, rows: slice, effects: Sequence[Effect]) -> Tensor:
    """The effects act in order, each on what the last one left."""
    total = torch.zeros_like(own)
    turned = name == "weight" and site.kind in ("conv1d", "embedding")
    for effect in effects:
        if isinstance(effect, Scale):
            total = _scaled(effect, name, own, total, rows, turned=turned)
        elif name not in _changed(effect, site):
            continue
        elif isinstance(effect, LowRank):
            down, up = effect.down.detach().to(own), effect.up.detach().to(own)
            left, right = (down.T[rows], up.T) if turned else (up[rows], down)
            total.addmm_(left, right, alpha=effect.scale)
        elif isinstance(effect, Dense):
            delta = effect.delta.detach().T if turned else effect.delta.detach()
            total += rowed(delta)[rows].to(own)
        elif isinstance(effect, Bias):
            total += effect.vector.detach()[rows].to(own)
        elif isinstance(effect, Rows):
            _replace(effect, own, total, rows)
    return total


def _scaled(effect: Scale, name: str, own: Tensor, total: Tensor, rows: slice, *, turned: bool) -> Tensor:
    vector = effect.vector.detach().to(own)
    of_input = effect.side == "input"
    if name == "bias":
        if of_input:
            return total
        factor = vector[rows]
        return total * factor + (own * (factor - 1.0) if effect.bias else 0.0)
    if name != "weight":
        return total
    factor = vector[rows, None] if of_input == turned else vector
    # of the input: adds what the base makes of the rest of it, whatever was added before
    return (total if of_input else total * factor) + own * (factor - 1.0)


def _replace(effect: Rows, own: Tensor, total: Tensor, rows: slice) -> None:
    index = effect.index.to(own.device)
    inside = (index >= rows.start) & (index < rows.stop)
    places = index[inside] - rows.start
    total[places] = effect.rows.detach().to(own)[inside] - own[places]
