"""What a merged adapter looks like, found without its numbers: tensors on the meta device go the way of real ones."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.effects import Bias, Dense, LowRank
from adapterkit.errors import SelectionError
from adapterkit.merging.expressing import Wanted, express
from adapterkit.merging.joining import join
from adapterkit.merging.refusing import refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from adapterkit.base import Base
    from adapterkit.effects import Effect
    from adapterkit.merging.changes import Change
    from adapterkit.merging.strategy import Strategy
    from adapterkit.registry import Registry

__all__ = ["Shape", "merged_shape", "ranks_of", "size_of", "without_numbers"]


@attrs.frozen(eq=False, kw_only=True)
class Shape:
    """A merged adapter before it is made.

    Attributes:
        method: Its method.
        rank: The lowest and the highest rank that its updates have at most; None where it has none.
        sites: How many sites it acts on.
        bytes: The size that its tensors have at most.
        changes: What it changes, by site; the numbers are left out.
    """

    method: str
    rank: tuple[int, int] | None
    sites: int
    bytes: int
    changes: Mapping[str, Change] = attrs.field(repr=False)


def merged_shape(
    registry: Registry,
    parents: Sequence[Any],
    strategy: Strategy,
    borrowed: Mapping[str, str],
    base: Base | None,
) -> Shape:
    """What becomes of ``parents``, which have ``changes`` by site, a ``method``, and a text that calls them.

    Raises:
        SelectionError: They cannot be merged so; all reasons.
    """
    changes = _merged(parents, strategy)
    effects = {site: _effects(change) for site, change in changes.items()}
    methods = {site: {one.method for one in parents if site in one.changes} for site in changes}
    wanted = Wanted(effects, methods, borrowed, base)
    method, config, tensors = express(registry, wanted, [one.method for one in parents])
    does = method.effects(config, tensors) or effects
    return Shape(
        method=method.name,
        rank=ranks_of(one for here in does.values() for one in here),
        sites=len(effects),
        bytes=size_of(tensors),
        changes=changes,
    )


def without_numbers(change: Change) -> Change:
    """The same change on the meta device, but for what is no change of a weight: that is small, and looked at."""
    weight = change.weight
    if isinstance(weight, LowRank):
        weight = attrs.evolve(weight, down=weight.down.to("meta"), up=weight.up.to("meta"))
    elif weight is not None:
        weight = weight.to("meta")
    return attrs.evolve(
        change, weight=weight, parameters={name: one.to("meta") for name, one in change.parameters.items()}
    )


def ranks_of(parts: Iterable[Any]) -> tuple[int, int] | None:
    """The lowest and the highest rank of those that are low-rank updates."""
    found = [one.rank for one in parts if isinstance(one, LowRank)]
    return (min(found), max(found)) if found else None


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes."""
    return sum(one.numel() * one.element_size() for one in tensors.values())


def _merged(parents: Sequence[Any], strategy: Strategy) -> dict[str, Change]:
    """The merged changes, by site."""
    found: dict[str, Change] = {}
    reasons: dict[str, list[str]] = defaultdict(list)
    for site in sorted({site for one in parents for site in one.changes}):
        changes = [one.changes.get(site) for one in parents]
        refused = refusals(parents, changes, strategy)
        for reason in refused:
            reasons[reason].append(site)
        if not refused:
            found[site] = _joined(site, changes, strategy)
    if reasons:
        lines = (f"{_named(sites)}: {reason}" for reason, sites in reasons.items())
        raise SelectionError("; ".join(lines))
    return found


def _named(sites: Sequence[str]) -> str:
    return repr(sites[0]) + (f" and {len(sites) - 1} more" if len(sites) > 1 else "")


def _joined(site: str, changes: Sequence[Change | None], strategy: Strategy) -> Change:
    """What the change at a site looks like when several are merged."""
    there = [one for one in changes if one is not None]
    if there[0].rest:  # virtual tokens, rows, vectors: these are merged
        return attrs.evolve(there[0], rest=join(site, changes, strategy, lambda _: None).effects)
    shapes = {name: shape for one in there for name, shape in one.shapes().items()}
    weights = [one.weight for one in there if one.weight is not None]
    biased = [one for one in there if "bias" in one.parameters]
    return attrs.evolve(
        there[0],
        weight=_weight(weights, shapes["weight"], strategy) if weights else None,
        parameters={name: _empty(*shape) for name, shape in shapes.items() if name != "weight"},
        adds_bias=all(one.adds_bias for one in biased),
        embedding=any(one.embedding for one in there),
    )


def _weight(weights: Sequence[LowRank | Tensor], shape: tuple[int, ...], strategy: Strategy) -> LowRank | Tensor:
    """The change of a weight: its rank is what was asked for, else the sum of the ranks."""
    ranks = [one.rank for one in weights if isinstance(one, LowRank)]
    is_low = len(ranks) == len(weights)
    if not is_low and strategy.rank is None:
        return _empty(*shape)
    most = min(shape)
    if is_low:
        total = ranks[0] if strategy.in_factors else sum(ranks)
        held = strategy.exact or strategy.in_factors  # no more directions than there are; others may make more
        most = min(most, total) if held or strategy.rank is None else most
    rank = min(most, strategy.rank or most)
    return LowRank(_empty(rank, shape[1]), _empty(shape[0], rank), 1.0)


def _effects(change: Change) -> tuple[Effect, ...]:
    """The effects that say a change."""
    if change.rest:
        return change.rest
    made: list[Effect] = []
    if isinstance(change.weight, LowRank):
        made.append(attrs.evolve(change.weight, embedding=change.embedding))
    elif change.weight is not None:
        made.append(Dense(change.weight, embedding=change.embedding))
    for name, one in change.parameters.items():
        made.append(Bias(one) if name == "bias" and change.adds_bias else Dense(one, name))
    return tuple(made)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")
