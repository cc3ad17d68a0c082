"""Which rows each optimizer step sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from adapterkit.data.batching import batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapterkit.contracts import TrainOptions
    from adapterkit.data.mixture import Mixture

__all__ = ["Schedule"]


@attrs.frozen
class Schedule:
    """The steps of a run: each is a list of batches, and a batch is a list of row numbers.

    Attributes:
        lengths: The length of each row in tokens.
        options: The options of the run.
        processes: How many processes share a step.
        mixture: Which rows an epoch has, where rows come from several sources; else all of them, once.
    """

    lengths: Sequence[int]
    options: TrainOptions
    processes: int = 1
    mixture: Mixture | None = None

    @property
    def steps(self) -> int:
        """How many optimizer steps the run takes."""
        return self.options.max_steps or max(1, math.ceil(self.options.epochs * self._in_epoch))

    @property
    def _in_epoch(self) -> int:
        per_step = self.options.batch_size * self.options.gradient_accumulation_steps * self.processes
        return math.ceil(len(self.lengths if self.mixture is None else self.mixture) / per_step)

    def after(self, step: int) -> Iterator[tuple[int, list[list[int]]]]:
        """The steps that follow ``step``, each with its number, counted from 1."""
        return ((number, batches) for number, batches in enumerate(self, start=1) if number > step)

    def __iter__(self) -> Iterator[list[list[int]]]:
        share = self.options.gradient_accumulation_steps * self.processes
        left, epoch = self.steps, 0
        while left:
            drawn = batches(
                self.lengths,
                self.options.batch_size,
                seed=self.options.seed,
                epoch=epoch,
                group_by_length=self.options.group_by_length,
                rows=None if self.mixture is None else self.mixture.epoch(epoch),
            )
            for start in range(0, len(drawn), share)[:left]:
                yield drawn[start : start + share]
                left -= 1
            epoch += 1
