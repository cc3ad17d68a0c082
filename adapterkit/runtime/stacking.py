"""Low-rank factors of many plans side by side, kept from batch to batch."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import attrs
import torch

from .actions import AddLowRank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from .actions import Plan

__all__ = ["PAGE", "Slots", "Stacks", "runs_of"]

PAGE = 8
"""Ranks that are given to a plan at a time."""


_NOTHING = AddLowRank(torch.empty(0, 0), torch.empty(0, 0))


def _rank_of(plan: Plan) -> int:
    """The ranks of its largest low-rank site."""
    return max((one.rank for one in plan.values() if isinstance(one, AddLowRank)), default=0)


def _first_of(plan: Plan) -> AddLowRank | None:
    """The first low-rank action."""
    return next((one for one in plan.values() if isinstance(one, AddLowRank)), None)


@attrs.frozen(eq=False)
class _Placed:
    action: weakref.ref[AddLowRank]
    """One of the plan's: while it lives, no other plan has the plan's id, and an adapter that is evicted is let go."""
    pages: tuple[int, ...]


class Slots:
    """Which plan has which pages of ranks, the same at every site.

    Plans of earlier batches keep their pages until these are needed, so that one that comes back is there already.

    Args:
        limit: How far the pages of a batch may reach where it needs so many: what is computed for it goes from the first page to
            its last.
    """

    def __init__(self, limit: Callable[[int], int]) -> None:
        self._limit = limit
        self._placed: dict[int, _Placed] = {}

    def has(self, plan: Plan) -> bool:
        """Whether a plan has its pages now."""
        placed = self._placed.get(id(plan))
        return placed is not None and placed.action() is _first_of(plan)

    def pages_of(self, plan: Plan) -> int:
        """How many pages it needs."""
        return len(self._placed[id(plan)].pages) if self.has(plan) else -(-_rank_of(plan) // PAGE)

    def place(self, plans: Sequence[Plan]) -> tuple[dict[int, tuple[int, ...]], list[tuple[Plan, tuple[int, ...]]]]:
        """Give each plan its pages.

        Returns:
            By a plan's id, its pages; and the plans whose factors have to be written there.
        """
        distinct = {id(plan): plan for plan in plans}
        needed = {key: self.pages_of(plan) for key, plan in distinct.items()}
        limit = self._limit(sum(needed.values()))
        mine = {
            key: self._placed[key].pages
            for key, plan in distinct.items()
            if self.has(plan) and max(self._placed[key].pages, default=0) < limit
        }
        taken = {page for pages in mine.values() for page in pages}
        free = iter(sorted(set(range(limit)) - taken))
        fresh: list[tuple[Plan, tuple[int, ...]]] = []
        for key, plan in distinct.items():
            action = _first_of(plan)
            if key not in mine:
                mine[key] = tuple(next(free) for _ in range(needed[key]))
                if action is not None:
                    fresh.append((plan, mine[key]))
        gone = {page for _, pages in fresh for page in pages}
        own = {id(plan) for plan, _ in fresh}
        self._placed = {
            key: one
            for key, one in self._placed.items()
            if key not in own and gone.isdisjoint(one.pages) and one.action()
        }
        for plan, pages in fresh:
            self._placed[id(plan)] = _Placed(weakref.ref(_first_of(plan)), pages)  # type: ignore[arg-type]
        return mine, fresh


class Stacks:
    """Factors side by side at every site: a plan that joins a batch is written once, and nothing for one that leaves.

    Args:
        most: How many ranks a batch may have; a plan for which there is no room is left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most // PAGE
        self._slots = Slots(lambda needed: needed + max(needed // 2, 4))
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}

    def place(self, plans: Sequence[Plan]) -> dict[int, list[int]]:
        """Have the factors of plans in place; for each by its id, its columns."""
        chosen: list[Plan] = []
        room = self._most
        for plan in plans:
            many = self._slots.pages_of(plan)
            if many <= room:
                chosen.append(plan)
                room -= many
        pages, fresh = self._slots.place(chosen)
        for plan, own in fresh:
            self._write(plan, own)
        return {key: _columns(own) for key, own in pages.items()}

    def at(self, site: str, ranks: int) -> AddLowRank:
        """The first ``ranks`` of a site."""
        down, up = self._factors[site]
        return AddLowRank(down[:ranks], up[:ranks].T)

    def _write(self, plan: Plan, pages: Sequence[int]) -> None:
        new = {site: one for site, one in plan.items() if isinstance(one, AddLowRank)}
        for site, action in new.items():
            self._grow(site, action, PAGE * (max(pages) + 1))
        goals: list[Tensor] = []
        sources: list[Tensor] = []
        blank: list[Tensor] = []
        for site, (down, up) in self._factors.items():
            action = new.get(site, _NOTHING)
            start = 0
            for run in runs_of(pages):
                end = run.start + max(0, min(len(run), action.rank - start))
                if end > run.start:
                    own = slice(start, start + end - run.start)
                    goals += [down[run.start : end], up[run.start : end]]
                    sources += [action.down[own], action.up[:, own].T]
                blank += [down[end : run.stop], up[end : run.stop]]  # what another adapter has left there
                start += len(run)
        if goals:
            torch._foreach_copy_(goals, sources)
        torch._foreach_zero_(blank)

    def _grow(self, site: str, like: AddLowRank, ranks: int) -> None:
        """Have room for so many ranks at a site, twice as many as there were, so that it seldom grows."""
        had = self._factors.get(site)
        if had is None or len(had[0]) < ranks:
            most = max(ranks, 2 * len(had[0]) if had is not None else 0)
            made = like.down.new_zeros(most, like.down.shape[1]), like.up.new_zeros(most, like.up.shape[0])
            for whole, old in zip(made, had or (), strict=False):
                whole[: len(old)] = old
            self._factors[site] = made


def runs_of(pages: Sequence[int]) -> list[range]:
    """The ranks of pages, neighbours together."""
    runs: list[range] = []
    for page in pages:
        start = runs.pop().start if runs and runs[-1].stop == page * PAGE else page * PAGE
        runs.append(range(start, (page + 1) * PAGE))
    return runs


def _columns(pages: Sequence[int]) -> list[int]:
    return [column for run in runs_of(pages) for column in run]
