"""Batches whose rows follow different plans."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from adapterkit.errors import SelectionError
from adapterkit.sites import INPUT

from .actions import Action, AddLowRank, Chain, Plan, shrink
from .stacking import Stacks
from .tokens import InputAction, prefix_count, virtual_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MOST_MASKED_RANK", "MaskedLowRank", "RowAction", "RowPlan", "Rows", "room", "row_plan"]

MOST_MASKED_RANK = 512
"""Beyond this total rank the adapters of a batch are computed one after another, each on its own rows: the stacked product's
work grows with rows times total rank, most of it for ranks that are not a row's own."""


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

    def spread(self, value: Any) -> Any:
        """What a model computes once for all rows, such as the embeddings of positions, given to each row for itself."""
        return _each(lambda one: one.expand(self.batch, *one.shape[1:]) if len(one) == 1 < self.batch else one, value)

    def block(self, y: Any) -> int:
        """How many consecutive entries of ``y`` belong to one row: its beams, or its tokens where a model flattens them.

        Raises:
            SelectionError: It cannot be told; a layer that sees only some tokens, such as one expert of several.
        """
        tensors = [one for one in (y if isinstance(y, tuple) else (y,)) if isinstance(one, Tensor)]
        first = tensors[0]
        entries = first.shape[0] if all(one.shape[:1] == first.shape[:1] for one in tensors) else -1
        known = (self.batch, self.tokens) if first.dim() == 2 else (self.batch,)
        if entries not in known or entries % self.count:
            raise SelectionError(
                f"a batch of {self.count} rows with adapters of their own reached a layer as {tuple(first.shape)}: which entries "
                "are whose cannot be told; give the batch one adapter, or run its rows in turn"
            )
        return int(entries // self.count)


@attrs.frozen(eq=False)
class RowAction:
    """Another action for each group of rows, computed on those rows alone; rows in no group are the base alone."""

    groups: tuple[tuple[Tensor, Action], ...]
    rows: Rows

    def __call__(self, x: Any, y: Any) -> Any:
        """Each row with its own action."""
        if getattr(x, "named", None):
            raise SelectionError(f"a layer takes {sorted(x.named)} by name: which entries are whose cannot be told")
        x, y = self.rows.spread(x), self.rows.spread(y)
        given, block = self.rows.block(x), self.rows.block(y)
        out = _each(torch.clone, y)
        for numbers, action in self.groups:
            index, taken = _spread(numbers, block), _spread(numbers, given)
            mine = action(_each(lambda one: one[taken], x), _each(lambda one: one[index], y))  # noqa: B023 - called at once
            for whole, part in zip(_parts(out), _parts(mine), strict=True):
                if isinstance(whole, Tensor):
                    whole[index] = part
        return out


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _each(change: Any, value: Any) -> Any:
    """``change`` of a tensor, or of each in a tuple; numbers are the same for every row."""
    if isinstance(value, tuple):
        return tuple(_each(change, one) for one in value)
    return change(value) if isinstance(value, Tensor) else value


@attrs.frozen(eq=False)
class MaskedLowRank:
    """Low-rank actions of different rows as one pair of products.

    Every adapter's ``down`` is stacked into ``(total rank, in)`` and every ``up`` into ``(out, total rank)``; between the
    two, a row keeps only the ranks that are its own. What is not its own is replaced by zero, not multiplied by it, so
    that not even another adapter's infinity reaches a row.

    Attributes:
        stacked: All factors.
        foreign: ``(rows, total rank)``, true where a rank is another row's.
    """

    stacked: AddLowRank
    foreign: Tensor
    rows: Rows

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Each row with its own ranks."""
        x, y = self.rows.spread(x), self.rows.spread(y)
        block = self.rows.block(y)
        foreign = self.foreign if block == 1 else self.foreign.repeat_interleave(block, dim=0)
        low = shrink(x, self.stacked.down)
        shape = (len(foreign),) + (1,) * (low.dim() - 2) + (foreign.shape[1],)
        low = low.masked_fill(foreign.view(shape), 0.0)
        return y + functional.linear(low, self.stacked.up).to(y.dtype)


class RowPlan(dict[str, Action]):
    """The plan of a batch whose rows follow different plans.

    Attributes:
        rows: How the forward pass under way lays the rows out.
        virtual: For each row, the numbers of its virtual tokens in the table of all of them.
        prefix: For each row, how many positions its prefix has.
    """

    def __init__(
        self, actions: Mapping[str, Action], rows: Rows, virtual: Sequence[range], prefix: Sequence[int]
    ) -> None:
        super().__init__(actions)
        self.rows, self.virtual, self.prefix = rows, virtual, prefix

    def including(self, more: Mapping[str, Action]) -> RowPlan:
        """The same with other actions for some sites."""
        return RowPlan({**self, **more}, self.rows, self.virtual, self.prefix)

    def contexts(self) -> tuple[Any, Any]:
        """Around a part of a forward pass, and around the same part when it is computed again for the backward pass."""
        return contextlib.nullcontext(), contextlib.nullcontext()


def row_plan(
    plans: Sequence[Plan | None], device: torch.device, stacks: Stacks | None = None, *, together: bool = True
) -> RowPlan:
    """The plan of a batch whose row ``i`` follows ``plans[i]``; None is the base alone.

    Args:
        plans: One for each row.
        device: Where the base is.
        stacks: What was stacked for batches before; pass the same to all of a series of them.
        together: Whether the low-rank actions at a site are computed as one pair of products, which is faster while each row has
            few tokens; else one plan after another.
    """
    rows = Rows(len(plans))
    distinct = {id(plan): plan for plan in plans if plan is not None}
    numbers = {
        key: torch.tensor([i for i, plan in enumerate(plans) if id(plan) == key], device=device) for key in distinct
    }
    stacks = stacks or Stacks(MOST_MASKED_RANK)
    columns = stacks.place(list(distinct.values())) if together else {}
    foreign = _foreign([columns.get(id(plan), ()) for plan in plans]).to(device)
    actions: dict[str, Action] = {}
    for site in {site for plan in distinct.values() for site in plan} - {INPUT}:
        here = {key: plan[site] for key, plan in distinct.items() if site in plan}
        low = {key for key, action in here.items() if isinstance(action, AddLowRank) and key in columns}
        steps: list[Action] = []
        if low:
            stacked = stacks.at(site, foreign.shape[1])
            steps.append(MaskedLowRank(stacked, foreign[:, : stacked.rank], rows))
        if len(low) < len(here):
            steps.append(RowAction(tuple((numbers[key], one) for key, one in here.items() if key not in low), rows))
        actions[site] = steps[0] if len(steps) == 1 else Chain(tuple(steps))
    virtual: dict[int, range] = {}
    for key, plan in distinct.items():
        start = sum(map(len, virtual.values()))
        virtual[key] = range(start, start + virtual_count(plan))
    own, prefixes = [virtual.get(id(plan), range(0)) for plan in plans], [prefix_count(plan) for plan in plans]
    inputs = [plan.get(INPUT) if plan is not None else None for plan in plans]
    if any(isinstance(one, InputAction) for one in inputs):
        tables = [plan[INPUT].table() for plan in distinct.values() if virtual_count(plan)]  # type: ignore[attr-defined]
        actions[INPUT] = attrs.evolve(_joined(tables, inputs, device), rows=tuple(zip(prefixes, own, strict=True)))
    return RowPlan(actions, rows, own, prefixes)


def room(plan: Plan | None, known: int, rows: int) -> tuple[list[list[int]], list[list[int]]]:
    """For each of ``rows`` rows, ids from ``known`` on that hold the place of its prefix, and those of its virtual tokens."""
    if isinstance(plan, RowPlan):
        numbers, lengths = plan.virtual, plan.prefix
    else:
        numbers, lengths = [range(virtual_count(plan))] * rows, [prefix_count(plan)] * rows
    return [[known] * length for length in lengths], [[known + number for number in own] for own in numbers]


def _joined(tables: Sequence[Tensor], inputs: Sequence[Any], device: torch.device) -> InputAction:
    """One action of those of all rows: one table for all, and a prefix for each that has one."""
    table = torch.cat([one.to(tables[0]) for one in tables]) if tables else torch.empty(0, 0, device=device)
    length = max(one.prefix_length if one is not None else 0 for one in inputs)
    if not length:
        return InputAction(lambda: table)
    given = {row: one.prefix(1) for row, one in enumerate(inputs) if one is not None and one.prefix is not None}
    first = next(iter(given.values()))[0]
    layers, _, heads, _, size = first.shape
    keys, values = (torch.zeros(layers, len(inputs), heads, length, size).to(first) for _ in range(2))
    for row, pair in given.items():  # behind zeros, which the mask hides, where others are longer
        for whole, own in zip((keys, values), pair, strict=True):
            whole[:, row, :, length - own.shape[3] :] = own[:, 0]

    def prefix(count: int) -> tuple[Tensor, Tensor]:
        beams = count // len(inputs)
        return keys.repeat_interleave(beams, 1), values.repeat_interleave(beams, 1)

    return InputAction(lambda: table, prefix, length)


def _foreign(columns: Sequence[Sequence[int]]) -> Tensor:
    """``(rows, ranks)``, true where a rank is not of the row's own ``columns``."""
    mask = torch.ones(len(columns), 1 + max((max(own, default=-1) for own in columns), default=-1), dtype=torch.bool)
    for row, own in zip(mask, columns, strict=True):
        row[list(own)] = False
    return mask


def _spread(rows: Tensor, block: int) -> Tensor:
    if block == 1:
        return rows
    return (rows[:, None] * block + torch.arange(block, device=rows.device)).reshape(-1)
