"""The changes that several adapters make at one site, as one change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import torch
from torch import Tensor

from adapterkit.effects import Bias, Dense, Effect, LowRank, PrefixKV, Rows, Scale, Tokens

from .changes import Change, zero_like
from .reducing import cut_dense, distance, norm, summed

if TYPE_CHECKING:
    from .strategy import Strategy

__all__ = ["Joined", "join"]

T = TypeVar("T")
Own = Callable[[str], Tensor | None]
"""The base's own parameter of a name, weights as ``(out_features, in_features)``, in float32; None without a base."""


@attrs.frozen(eq=False)
class Joined:
    """What the merged adapter does at a site.

    Attributes:
        effects: What it does.
        lost: The Frobenius norm of what was cut off to keep the rank.
        total: The Frobenius norm of the merged change of the weight before that.
    """

    effects: tuple[Effect, ...]
    lost: float = 0.0
    total: float = 0.0


def join(site: str, changes: Sequence[Change | None], strategy: Strategy, own: Own) -> Joined:
    """Merge the changes at ``site``, one for each parent; None where a parent leaves the site alone."""
    there = [one for one in changes if one is not None]
    rest: list[Effect]
    rest, sums = _present([one.rest[0] if one is not None and one.rest else None for one in changes], strategy.sums)
    if rest:
        return Joined((_rest(rest, sums, strategy),))
    made: list[Effect] = []
    lost = total = 0.0
    parts = [None if one is None else one.weight for one in changes]
    if any(one is not None for one in parts):
        merged, lost, total = _weight(f"{site}.weight", parts, strategy, own)
        made.append(_effect(merged, embedding=any(one.embedding for one in there)))
    for name in sorted({name for one in there for name in one.parameters}):
        tensors = [None if one is None else one.parameters.get(name) for one in changes]
        parameter = _whole(f"{site}.{name}", tensors, strategy, own(name))
        is_added = name == "bias" and all(one.adds_bias for one in there if name in one.parameters)
        made.append(Bias(parameter) if is_added else Dense(parameter, name))
    return Joined(tuple(made), lost, total)


def _effect(change: LowRank | Tensor, *, embedding: bool) -> Effect:
    if isinstance(change, LowRank):
        return attrs.evolve(change, embedding=embedding)
    return Dense(change, embedding=embedding)


def _present(parts: Sequence[T | None], numbers: Sequence[float]) -> tuple[list[T], list[float]]:
    """What is there, and the numbers that go with it."""
    pairs = [(one, number) for one, number in zip(parts, numbers, strict=True) if one is not None]
    return [one for one, _ in pairs], [number for _, number in pairs]


def _all(parts: Sequence[Any]) -> list[Any]:
    """The same with a change of nothing where there is none."""
    some = next(one for one in parts if one is not None)
    return [zero_like(some) if one is None else one for one in parts]


# -- changes of parameters ------------------------------------------------------------------------------------------------


def _weight(
    place: str, parts: Sequence[LowRank | Tensor | None], strategy: Strategy, own: Own
) -> tuple[LowRank | Tensor, float, float]:
    """The merged change of a weight, what was cut off of it, and how large it was."""
    there: list[LowRank | Tensor]
    there, sums = _present(parts, strategy.sums)
    updates = [one for one in there if isinstance(one, LowRank)]
    is_low = len(updates) == len(there)
    whole: LowRank | Tensor
    if is_low and strategy.in_factors:
        whole = _factors(place, updates, _present(parts, strategy.weights)[1], strategy)
    elif is_low and strategy.takes_updates:
        whole = strategy.of_updates(place, _all(parts), own("weight"))
    elif is_low and strategy.exact:
        whole = LowRank.stacked(updates, sums)
    else:
        dense = [one.delta() if isinstance(one, LowRank) else one for one in parts]
        whole = _whole(place, dense, strategy, own("weight"))
    merged = _reduced(whole, strategy.rank or (sum(one.rank for one in updates) if is_low else None))
    wanted = LowRank.stacked(updates, sums) if is_low and strategy.exact and not strategy.in_factors else whole
    as_it_is = merged is whole and "rank" not in strategy.filled  # else the strategy may have cut it itself
    total = norm(wanted)
    lost = 0.0 if as_it_is or not isinstance(merged, LowRank) else distance(wanted, merged, total)
    return merged, lost, total


def _reduced(whole: LowRank | Tensor, rank: int | None) -> LowRank | Tensor:
    """The same in at most ``rank`` directions, and in no more than the weight has."""
    if isinstance(whole, LowRank):
        most = min(whole.up.shape[0], whole.down.shape[1], rank or whole.rank)
        return whole if whole.rank <= most else whole.cut(most)
    return whole if rank is None else cut_dense(whole, min(rank, *whole.shape))


def _factors(place: str, updates: Sequence[LowRank], weights: Sequence[float], strategy: Strategy) -> LowRank:
    """PEFT's way: the strategy on all A and, apart from them, on all B, each weighted by the root of weight times scale."""
    scaled = [one.scale * weight for one, weight in zip(updates, weights, strict=True)]
    roots = [math.sqrt(abs(one)) for one in scaled]
    signed = [math.copysign(root, one) for root, one in zip(roots, scaled, strict=True)]
    down = strategy.of_deltas(f"{place}.down", [one.down.float() for one in updates], None, signed)
    up = strategy.of_deltas(f"{place}.up", [one.up.float() for one in updates], None, roots)
    return LowRank(down, up, 1.0)


def _whole(place: str, tensors: Sequence[Tensor | None], strategy: Strategy, own: Tensor | None) -> Tensor:
    """What a strategy makes of whole changes; the sum that it makes of factors, where it takes these alone."""
    if strategy.takes_updates:
        return summed(*_present(tensors, strategy.sums))
    return strategy.of_deltas(place, _all(tensors), own).float()


# -- what is no change of a parameter -------------------------------------------------------------------------------------


def _rest(effects: Sequence[Effect], sums: Sequence[float], strategy: Strategy) -> Effect:
    """Several effects of one kind as one; what cannot be joined so was refused before."""
    first = effects[0]
    if isinstance(first, Scale):
        moved = [one.vector.detach().to("cpu", torch.float32) - 1.0 for one in effects if isinstance(one, Scale)]
        return attrs.evolve(first, vector=1.0 + summed(moved, sums))
    if isinstance(first, Rows):
        found = [one for one in effects if isinstance(one, Rows)]
        return Rows(_joined([one.index for one in found]), _joined([one.rows for one in found]))
    one_sum = not strategy.takes_updates and len(effects) > 1
    if isinstance(first, Tokens):
        tables = [one.embeddings for one in effects if isinstance(one, Tokens)]
        return Tokens(_summed(tables, sums) if one_sum else _joined(tables))
    prefixes = [one for one in effects if isinstance(one, PrefixKV)]
    keys, values = [one.keys for one in prefixes], [one.values for one in prefixes]
    return PrefixKV(*(_summed(one, sums) if one_sum else _joined(one, dim=2) for one in (keys, values)))


def _summed(tensors: Sequence[Tensor], sums: Sequence[float]) -> Tensor:
    return summed([one.detach().cpu() for one in tensors], sums)


def _joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    return torch.cat([one.detach().cpu() for one in tensors], dim)
