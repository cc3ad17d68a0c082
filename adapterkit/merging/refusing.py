"""What cannot be merged at a site, and what to do instead."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from torch import Tensor

from adapterkit.effects import LowRank, PrefixKV, Rows, Scale, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.effects import Effect

    from .changes import Change
    from .parents import Parent
    from .strategy import Strategy

__all__ = ["refusals"]

GIVE_BASE = "give base=…, against which it becomes a change of the weight"
STACK = "use them together as a Stack"


def refusals(parents: Sequence[Parent], changes: Sequence[Change | None], strategy: Strategy) -> list[str]:
    """Why the changes at a site cannot be merged, one line for each reason; none where they can."""
    there = [(parent, change) for parent, change in zip(parents, changes, strict=True) if change is not None]
    found = _shapes(there) + _ranks([change for _, change in there], strategy)
    if any(change.rest for _, change in there):
        return found + _of_rest(there, parents, strategy)
    if strategy.takes_updates and not strategy.exact:
        found += [
            f"{parent} changes it by more than low-rank factors, and strategy {strategy.name!r} takes those alone"
            for parent, change in there
            if change.parameters or isinstance(change.weight, Tensor)
        ]
    if strategy.in_factors:
        factors = [change.weight for _, change in there if change.weight is not None]
        if not all(isinstance(one, LowRank) for one in factors):
            found.append("space='factors' is for adapters that are all of low rank; leave it at 'weights'")
        elif len({one.rank for one in factors if isinstance(one, LowRank)}) > 1:
            found.append("space='factors' is for equal ranks; leave it at 'weights'")
    return found


def _shapes(there: Sequence[tuple[Parent, Change]]) -> list[str]:
    """The first two that change a parameter of different shapes."""
    for (one, mine), (other, theirs) in combinations(there, 2):
        left, right = mine.shapes(), theirs.shapes()
        for name in sorted(left.keys() & right.keys()):
            if left[name] != right[name]:
                return [f"{one} changes a {name} {left[name]}, and {other} one {right[name]}: their bases differ"]
    return []


def _ranks(there: Sequence[Change], strategy: Strategy) -> list[str]:
    shape = next((change.shapes()["weight"] for change in there if change.weight is not None), None)
    if shape is None or strategy.rank is None or strategy.rank <= min(shape):
        return []
    return [f"rank={strategy.rank} is over its limit: a weight {shape} has {min(shape)} directions"]


def _of_rest(there: Sequence[tuple[Parent, Change]], parents: Sequence[Parent], strategy: Strategy) -> list[str]:
    """Of scales, rows, virtual tokens and prefixes."""
    effects = [one for _, change in there for one in change.rest]
    kinds = sorted({kind for _, change in there for kind in change.kinds()})
    at_input = isinstance(effects[0], (Tokens, PrefixKV))
    if len(kinds) > 1 or len(effects) > len(there):
        return [f"{' and '.join(kinds)} do not go together as they are: {STACK if at_input else GIVE_BASE}"]
    if not strategy.exact:
        return [
            f"strategy {strategy.name!r} merges changes of weights, and {there[0][0]} acts by {kinds[0]}: "
            + (STACK if at_input else GIVE_BASE)
        ]
    weights = [strategy.sums[parents.index(parent)] for parent, _ in there]
    if isinstance(effects[0], Scale):
        alike = {(one.side, one.bias, tuple(one.vector.shape)) for one in effects if isinstance(one, Scale)}
        return [] if len(alike) == 1 else [f"the adapters scale it in different ways: {GIVE_BASE}"]
    if isinstance(effects[0], Rows):
        return _of_rows([one for one in effects if isinstance(one, Rows)], weights)
    return _of_tokens(effects, weights, len(parents), strategy)


def _of_rows(rows: Sequence[Rows], weights: Sequence[float]) -> list[str]:
    tokens = [index for one in rows for index in one.index.tolist()]
    if len(set(tokens)) < len(tokens) or any(weight != 1.0 for weight in weights):
        return [f"only rows of different tokens, with the weight 1, stand beside each other: {GIVE_BASE}"]
    widths = {one.rows.shape[1] for one in rows}
    return [] if len(widths) == 1 else [f"its rows are of different widths {sorted(widths)}: their bases differ"]


def _of_tokens(effects: Sequence[Effect], weights: Sequence[float], count: int, strategy: Strategy) -> list[str]:
    """Virtual tokens one after another, or, where the strategy adds up whole changes, their sum."""
    shapes = [
        tuple((one.embeddings if isinstance(one, Tokens) else one.keys).shape)
        for one in effects
        if isinstance(one, (Tokens, PrefixKV))
    ]
    length = 0 if isinstance(effects[0], Tokens) else 2
    if len({shape[:length] + shape[length + 1 :] for shape in shapes}) > 1:
        return [f"virtual tokens of shapes {sorted(set(shapes))}: their bases differ"]
    if strategy.takes_updates or len(effects) == 1:
        wrong = [weight for weight in weights if weight != 1.0]
        return [f"virtual tokens stand there or do not: their weight is 1, and not {wrong[0]:g}"] if wrong else []
    if len(set(shapes)) > 1 or len(effects) < count:
        return [f"strategy {strategy.name!r} adds up virtual tokens of all adapters, equally many of each: {STACK}"]
    return []
