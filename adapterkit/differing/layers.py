"""How far two adapters are from each other at each site: in what they do, else in what they hold. No whole matrix is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.errors import ArtifactError, SelectionError
from adapterkit.merging.changes import read
from adapterkit.merging.reducing import distance, norm
from adapterkit.resident import effects_of

from .difference import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from torch import Tensor

    from adapterkit.adapter import Adapter
    from adapterkit.effects import Effects, LowRank
    from adapterkit.merging.changes import Change
    from adapterkit.registry import Registry

__all__ = ["Compared", "compare_layers"]

Sizes = tuple[float, float, float]
"""The norms of two things, and of their difference."""


@attrs.frozen(kw_only=True)
class Compared:
    """What :class:`~adapterkit.differing.Difference` says of sites."""

    layers: tuple[Layer, ...]
    same: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    unlike: tuple[str, ...]
    overall: Layer | None


def compare_layers(registry: Registry, first: Adapter, second: Adapter) -> Compared:
    """Compare two adapters: site by site where what each does is known without the base, else tensor by tensor."""
    mine, theirs = _effects(registry, first), _effects(registry, second)
    if mine is None or theirs is None:
        return _sorted(first.tensors, second.tensors, lambda name: _of_tensors(first, second, [name]))
    return _sorted(mine, theirs, lambda site: _of_site(first, second, read(mine[site]), read(theirs[site]), site))


def _effects(registry: Registry, adapter: Adapter) -> Effects | None:
    try:
        return {site: here for site, here in effects_of(registry, adapter).items() if here}
    except (SelectionError, ArtifactError):
        return None


def _sorted(mine: Collection[str], theirs: Collection[str], compare: Callable[[str], Layer | None]) -> Compared:
    both = sorted(set(mine) & set(theirs))
    found = {name: compare(name) for name in both}
    compared = [one for one in found.values() if one is not None]
    kinds = sorted({one.of for one in compared})  # what is done is not added to what is held
    return Compared(
        layers=tuple(sorted((one for one in compared if one.distance), key=lambda one: (-one.distance, one.name))),
        same=sum(not one.distance for one in compared),
        only_first=tuple(sorted(set(mine) - set(theirs))),
        only_second=tuple(sorted(set(theirs) - set(mine))),
        unlike=tuple(name for name in both if found[name] is None),
        overall=_overall([one for one in compared if one.of == kinds[0]]) if kinds else None,
    )


def _of_site(first: Adapter, second: Adapter, mine: Change, theirs: Change, site: str) -> Layer | None:
    """What the two do at a site; where that is no sum, such as a scale, what they hold there."""
    held = _of_tensors(first, second, _under(site, first, second), site)
    if mine.rest or theirs.rest:
        return held
    shapes, others = mine.shapes(), theirs.shapes()
    if any(shapes[name] != others[name] for name in shapes.keys() & others.keys()):
        return None
    names = sorted(shapes.keys() | others.keys())
    parts = [_of_change(_parameter(mine, name), _parameter(theirs, name)) for name in names]
    return _layer(site, _together(parts), "effect", held.relative if held is not None else None)


def _parameter(change: Change, name: str) -> LowRank | Tensor | None:
    return change.weight if name == "weight" and change.weight is not None else change.parameters.get(name)


def _of_change(one: LowRank | Tensor | None, other: LowRank | Tensor | None) -> Sizes:
    """Of changes of one parameter, as matrices or as factors: of factors by their small products."""
    mine, theirs = (0.0 if each is None else norm(each) for each in (one, other))
    if one is None or other is None:
        return mine, theirs, max(mine, theirs)
    if not isinstance(other, torch.Tensor):
        return mine, theirs, distance(one, other, mine)
    if not isinstance(one, torch.Tensor):
        return mine, theirs, distance(other, one, theirs)
    return mine, theirs, norm(one.double() - other.double())


def _under(site: str, *adapters: Adapter) -> list[str]:
    names = {name for one in adapters for name in one.tensors}
    return sorted(name for name in names if name.startswith(f"{site}."))


def _of_tensors(first: Adapter, second: Adapter, names: Sequence[str], title: str = "") -> Layer | None:
    """The distance of tensors; None where one of them is missing or of another shape."""
    pairs = [(first.tensors.get(name), second.tensors.get(name)) for name in names]
    sizes = []
    for one, other in pairs:
        if one is None or other is None or one.shape != other.shape:
            return None
        sizes.append((norm(one), norm(other), norm(one.double() - other.double())))
    if not sizes:
        return None
    layer = _layer(title or names[0], _together(sizes), "tensors", None)
    return attrs.evolve(layer, tensors=layer.relative)


def _overall(layers: Iterable[Layer]) -> Layer:
    layers = list(layers)
    return _layer("overall", _together([(one.first, one.second, one.distance) for one in layers]), layers[0].of, None)


def _together(sizes: Sequence[Sizes]) -> Sizes:
    """Of several things as one."""
    first, second, apart = zip(*sizes, strict=True) if sizes else ((), (), ())
    return math.hypot(*first), math.hypot(*second), math.hypot(*apart)


def _layer(name: str, sizes: Sizes, of: str, tensors: float | None) -> Layer:
    first, second, apart = sizes
    cosine = (first**2 + second**2 - apart**2) / (2 * first * second) if first and second else None
    return Layer(
        name=name,
        first=first,
        second=second,
        distance=apart,
        relative=apart / first if first else None,
        cosine=None if cosine is None else max(-1.0, min(1.0, cosine)),
        of=of,
        tensors=tensors,
    )
