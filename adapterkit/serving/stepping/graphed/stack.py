"""The low-rank factors of the adapters in a batch, side by side at every site."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from adapterkit.runtime import PAGE, Slots, runs_of
from adapterkit.runtime.actions import AddLowRank
from adapterkit.sites import INPUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from adapterkit.runtime import Plan

    from .parts import Projection

__all__ = ["PAGE", "LowRankStack", "bucket"]


def bucket(rank: int) -> int:
    """For how many ranks to compute: 0, 16, 64, or the next power of two."""
    return next((one for one in (0, 16, 64) if rank <= one), 1 << max(rank - 1, 0).bit_length())


class LowRankStack:
    """Which adapter has which ranks of every projection's factors.

    Adapters of earlier batches stay until their place is needed. Those of a batch lie before its :func:`bucket`.

    Args:
        projections: Of the model.
        most: How many ranks there are.
        like: A tensor of the device and dtype that factors have.
    """

    def __init__(self, projections: Iterable[Projection], most: int, like: Tensor) -> None:
        self.most, self._like, self._projections = bucket(most), like, tuple(projections)
        self._at = {name: (one, place) for one in self._projections for place, name in enumerate(one.names)}
        self._slots = Slots(lambda needed: bucket(PAGE * needed) // PAGE)

    def takes(self, plan: Plan) -> bool:
        """Whether all that a plan does, but for its virtual tokens, is low-rank and at known sites."""
        return self._slots.has(plan) or all(
            isinstance(one, AddLowRank) and site in self._at for site, one in plan.items() if site != INPUT
        )

    def pages_of(self, plan: Plan) -> int:
        """How many pages of ranks it needs: those of its largest site."""
        return self._slots.pages_of(plan)

    def place(self, plans: Sequence[Plan]) -> tuple[dict[int, tuple[int, ...]], bool]:
        """Have every plan's factors in place: for each plan's id, its pages; and whether a projection has its first adapter."""
        pages, fresh = self._slots.place(plans)
        grown = [self._write(plan, own) for plan, own in fresh]
        return pages, any(grown)

    @contextlib.contextmanager
    def filled(self) -> Iterator[None]:
        """Meanwhile, every projection has factors, of zeros where no adapter has acted yet."""
        fresh = [one for one in self._projections if one.down is None]
        try:
            for one in fresh:
                self._make(one)
            yield
        finally:
            for one in fresh:
                one.down = one.up = None

    def _make(self, one: Projection) -> None:
        one.down = self._like.new_zeros(len(one.names), self.most, one.size)
        one.up = self._like.new_zeros(self.most, sum(one.widths))

    def rank_of(self, pages: Mapping[int, Sequence[int]]) -> int:
        """For how many ranks to compute, so that all of these pages are among them."""
        return bucket(PAGE * (1 + max((page for own in pages.values() for page in own), default=-1)))

    def _write(self, plan: Plan, pages: Sequence[int]) -> bool:
        acting = {self._at[site][0]: None for site in plan if site != INPUT}
        fresh = [one for one in acting if one.down is None]
        for one in fresh:
            self._make(one)
        goals: tuple[list[Tensor], list[Tensor]] = [], []
        sources: tuple[list[Tensor], list[Tensor]] = [], []
        for site, (projection, place) in self._at.items():
            if projection.down is None or projection.up is None:
                continue
            first = sum(projection.widths[:place])
            up = projection.up[:, first : first + projection.widths[place]]
            action = plan.get(site)
            start = 0
            for run in runs_of(pages):
                many = 0
                if isinstance(action, AddLowRank):
                    many = max(0, min(len(run), action.rank - start))
                    goals[0].append(projection.down[place, run.start : run.start + many])
                    sources[0].append(action.down[start : start + many])
                    goals[1].append(up[run.start : run.start + many])
                    sources[1].append(action.up[:, start : start + many].T)
                projection.down[place, run.start + many : run.stop].zero_()
                up[run.start + many : run.stop].zero_()
                start += len(run)
        for goal, source in zip(goals, sources, strict=True):
            if goal:
                torch._foreach_copy_(goal, source)
        return bool(fresh)
