"""What happens at a site in one forward pass: ``action(x, y)`` replaces the base's output ``y`` for the input ``x``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from adapterkit.errors import PluginError, SelectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.effects import LowRank

__all__ = [
    "Action",
    "LayerAction",
    "LowRankAction",
    "MaskedLowRank",
    "Plan",
    "RowAction",
    "RowPlan",
    "Rows",
    "row_plan",
    "uniform_plan",
]

Action: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Plan: TypeAlias = Mapping[str, Action]
"""Actions by site name; a site that is not in the plan is the base alone."""

MOST_MASKED_RANK = 512
"""Beyond this total rank the adapters of a batch are computed one after another, each on its own rows: the stacked product's
work grows with rows times total rank, most of it for ranks that are not a row's own."""


@attrs.frozen(eq=False)
class LowRankAction:
    """One low-rank effect for the whole batch. Its scale is already in ``up``."""

    effect: LowRank

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """``y + up(down(x))``, in ``y``'s dtype."""
        low = self.effect.shrink(_as(x, self.effect.down.dtype))
        return y + functional.linear(low, self.effect.up).to(y.dtype)


@attrs.frozen(eq=False)
class LayerAction:
    """A method's own layer, held to its contract: it returns what replaces ``y``, and leaves ``x`` and ``y`` as they are.

    A layer that wrote into ``x`` would change what other sites are given, and one that returned nothing would be taken for
    one that changes nothing.
    """

    method: str
    site: str
    layer: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The layer's output, in ``y``'s dtype."""
        before = _versions(x, y)
        out = self.layer(x, y)
        if not isinstance(out, Tensor) or out.shape != y.shape:
            given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise PluginError(
                f"the layer of method {self.method!r} at {self.site!r} returned {given} for an output of shape {tuple(y.shape)}"
            )
        if _versions(x, y) != before:
            raise PluginError(f"the layer of method {self.method!r} at {self.site!r} changed its input in place")
        return out.to(y.dtype)


def _versions(*tensors: Tensor) -> tuple[int, ...]:
    """How often each was written to; unknown in inference mode and to a compiler."""
    if torch.compiler.is_compiling():
        return ()
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)  # noqa: SLF001


@attrs.frozen(eq=False)
class Chain:
    """Several actions at one site, each given the last one's output."""

    actions: tuple[Action, ...]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Every action in order."""
        for action in self.actions:
            y = action(x, y)
        return y


@attrs.define(eq=False)
class Rows:
    """The rows of one batch, as the forward pass under way lays them out.

    Attributes:
        count: How many rows the caller gave.
        batch: Sequences in the model's input: a multiple of ``count`` when each row has several beams; 0 before any forward.
        tokens: Tokens in the model's input, padding included.
    """

    count: int
    batch: int = 0
    tokens: int = 0

    def see(self, ids: Tensor) -> None:
        """Note the model's input: ``(batch, sequence)`` token ids, or embeddings with one dimension more."""
        self.batch, self.tokens = ids.shape[0], ids.shape[0] * ids.shape[1]

    def block(self, y: Tensor) -> int:
        """How many consecutive entries of ``y`` belong to one row: its beams, or its tokens where a model flattens them.

        Raises:
            SelectionError: It cannot be told; a layer that sees only some tokens, such as one expert of several.
        """
        entries = y.shape[0]
        known = (self.batch, self.tokens) if y.dim() == 2 else (self.batch,)
        if entries not in known or entries % self.count:
            raise SelectionError(
                f"a batch of {self.count} rows with adapters of their own reached a layer as {tuple(y.shape)}: which entries are "
                "whose cannot be told; give the batch one adapter, or run its rows in turn"
            )
        return entries // self.count


@attrs.frozen(eq=False)
class RowAction:
    """Another action for each group of rows, computed on those rows alone; rows in no group are the base alone."""

    groups: tuple[tuple[Tensor, Action], ...]
    rows: Rows

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Each row with its own action."""
        block = self.rows.block(y)
        out = y.clone()
        for numbers, action in self.groups:
            index = _spread(numbers, block)
            out[index] = action(x[index], y[index])
        return out


@attrs.frozen(eq=False)
class MaskedLowRank:
    """Low-rank effects of different rows as one pair of products.

    Every adapter's ``down`` is stacked into ``(total rank, in)`` and every ``up`` into ``(out, total rank)``; between the
    two, a row keeps only the ranks that are its own. What is not its own is replaced by zero, not multiplied by it, so
    that not even another adapter's infinity reaches a row.

    Attributes:
        effect: The stacked factors.
        foreign: ``(rows, total rank)``, true where a rank is another row's.
    """

    effect: LowRank
    foreign: Tensor
    rows: Rows

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Each row with its own ranks."""
        block = self.rows.block(y)
        foreign = self.foreign if block == 1 else self.foreign.repeat_interleave(block, dim=0)
        low = self.effect.shrink(_as(x, self.effect.down.dtype))
        shape = (len(foreign),) + (1,) * (low.dim() - 2) + (foreign.shape[1],)
        low = low.masked_fill(foreign.view(shape), 0.0)
        return y + functional.linear(low, self.effect.up).to(y.dtype)


class RowPlan(dict[str, Action]):
    """The plan of a batch whose rows follow different plans."""

    def __init__(self, actions: Mapping[str, Action], rows: Rows) -> None:
        super().__init__(actions)
        self.rows = rows


def uniform_plan(actions: Mapping[str, Sequence[Action]]) -> Plan:
    """The plan of one adapter for the whole batch."""
    return {site: steps[0] if len(steps) == 1 else Chain(tuple(steps)) for site, steps in actions.items()}


def row_plan(plans: Sequence[Plan | None], device: torch.device) -> RowPlan:
    """The plan of a batch whose row ``i`` follows ``plans[i]``; None is the base alone.

    Sites where every action is low-rank are computed as one pair of products, while that is faster.
    """
    rows = Rows(len(plans))
    distinct = {id(plan): plan for plan in plans if plan is not None}
    numbers = {
        key: torch.tensor([i for i, plan in enumerate(plans) if id(plan) == key], device=device) for key in distinct
    }
    actions: dict[str, Action] = {}
    for site in {site for plan in distinct.values() for site in plan}:
        groups = tuple((numbers[key], plan[site]) for key, plan in distinct.items() if site in plan)
        actions[site] = _stack(groups, rows) or RowAction(groups, rows)
    return RowPlan(actions, rows)


def _stack(groups: Sequence[tuple[Tensor, Action]], rows: Rows) -> MaskedLowRank | None:
    """The groups as one action; None unless all are low-rank and few enough."""
    effects = [(numbers, action.effect) for numbers, action in groups if isinstance(action, LowRankAction)]
    total = sum(effect.rank for _, effect in effects)
    if len(effects) < len(groups) or total > MOST_MASKED_RANK:
        return None
    first = effects[0][1]
    foreign = torch.ones(rows.count, total, dtype=torch.bool, device=first.down.device)
    start = 0
    for numbers, effect in effects:
        foreign[numbers, start : start + effect.rank] = False
        start += effect.rank
    down = torch.cat([effect.down for _, effect in effects])
    up = torch.cat([effect.up for _, effect in effects], dim=1)
    return MaskedLowRank(attrs.evolve(first, down=down, up=up, scale=1.0), foreign, rows)


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def _spread(rows: Tensor, block: int) -> Tensor:
    if block == 1:
        return rows
    return (rows[:, None] * block + torch.arange(block, device=rows.device)).reshape(-1)
