"""A search for settings: many configurations begin, in one pass over the base, and the better ones go on."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import build_config, canonical_json
from adapterkit.errors import ConfigError, TrainingError

from .concluding import conclude, fail, give_up
from .fleet import Fleet
from .jobs import Job
from .run import running, together

if TYPE_CHECKING:
    import os

    from adapterkit.adapter import Adapter
    from adapterkit.base import Base

    from .preparing import Prepared
    from .training import Training

__all__ = ["Sweep", "SweepOptions", "Trial", "sweep"]


@attrs.frozen(kw_only=True)
class SweepOptions:
    """How to search."""

    eta: int = attrs.field(default=2, validator=attrs.validators.ge(2))
    """At each rung, one in so many goes on."""
    min_steps: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    """The least steps before anything is given up: a learning rate is still warming up at first."""
    samples: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    """Try so many configurations of the grid, drawn by `seed`; by default all."""
    at_once: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    """The most configurations in one pass; others take turns."""


@attrs.frozen(eq=False)
class Trial:
    """One configuration, and how far it came.

    Attributes:
        options: Its part of the grid.
        losses: The loss on held-out rows by the step after which it was measured.
        steps: The last step that it took.
        ended: ``"finished"``, ``"given up"``, or what went wrong.
    """

    options: Mapping[str, Any]
    losses: Mapping[int, float]
    steps: int
    ended: str

    @property
    def loss(self) -> float:
        """The last loss that was measured; infinite for one that failed."""
        return self.losses[max(self.losses)] if self.losses and self.ended in ("finished", "given up") else math.inf


@attrs.frozen(eq=False)
class Sweep:
    """What a search has found.

    Attributes:
        trials: Every configuration, the best first: those that came further before those that did not.
        best: The adapter of the first of them, resident on the base.
    """

    trials: tuple[Trial, ...]
    best: Adapter

    @property
    def best_options(self) -> Mapping[str, Any]:
        """The configuration of :attr:`best`."""
        return self.trials[0].options

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        trials = [
            {**attrs.asdict(one), "losses": {str(step): loss for step, loss in one.losses.items()}}
            for one in self.trials
        ]
        return {"best": dict(self.best_options), "adapter": self.best.digest, "trials": trials}


def sweep(
    base: Base,
    data: Any,
    grid: Mapping[str, Sequence[Any]],
    *,
    method: str = "lora",
    output: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Sweep:
    """See :meth:`adapterkit.Base.sweep`."""
    names = {field.name for field in attrs.fields(SweepOptions)}
    search = build_config(SweepOptions, {k: v for k, v in options.items() if k in names}, what="options of sweep")
    fixed = {name: value for name, value in options.items() if name not in names}
    if fixed.get("resume"):
        reason = "resume: a search begins anew; those that were given up have left nothing to go on from"
        raise ConfigError("options of sweep do not fit", [reason])
    points = _points(grid, fixed, search)
    jobs = [Job(data, method=method, name=_name(point), **fixed, **point) for point in points]
    folders = [Path(output, job.name) if output is not None else None for job in jobs]
    with running(base, jobs, folders) as (ready, interrupted):
        if ready[0].rows.held_out is None:
            reason = "held-out rows decide who goes on: give eval_data or eval_split"
            raise ConfigError("options of sweep do not fit", [reason])
        race = _Race(ready, points, search, interrupted)
        race.run()
        return race.conclude(base)


def _points(grid: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], search: SweepOptions) -> list[dict[str, Any]]:
    """The configurations of a grid."""
    lists = isinstance(grid, Mapping) and all(isinstance(one, (list, tuple)) and one for one in grid.values())
    if not grid or not lists:
        example = "grid={'learning_rate': [1e-4, 1e-3], 'rank': [4, 16]}"
        raise ConfigError(
            "the grid does not fit", [f"give a list of values for each option, as in {example}; not {grid!r:.80}"]
        )
    twice = sorted(set(grid) & set(fixed))
    if twice:
        raise ConfigError("the grid does not fit", [f"{name}: is given beside the grid too" for name in twice])
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if search.samples is not None and search.samples < len(points):
        chosen = random.Random(fixed.get("seed", 42)).sample(range(len(points)), search.samples)  # noqa: S311 - not a secret
        points = [points[number] for number in sorted(chosen)]
    return points


def _name(point: Mapping[str, Any]) -> str:
    """What a configuration is called, and its folder."""
    said = ",".join(
        f"{name}={value if isinstance(value, str) else canonical_json(value)}" for name, value in point.items()
    )
    return said.replace("/", "_").replace("\\", "_")


class _Race:
    """Successive halving (Jamieson and Talwalkar, 2016): after each rung, one in ``eta`` goes on for ``eta`` times as long."""

    def __init__(
        self,
        ready: Sequence[Prepared],
        points: Sequence[Mapping[str, Any]],
        search: SweepOptions,
        interrupted: list[bool],
    ) -> None:
        self._ready, self._points, self._search = ready, points, search
        self._losses: dict[Training, dict[int, float]] = {one.training: {} for one in ready}
        self._ended: dict[Training, str] = {}
        trainings = [one.training for one in ready]
        parts = [trainings[start : start + search.at_once] for start in range(0, len(trainings), search.at_once)]
        work = together(ready)
        self._fleets = [Fleet(part, work, interrupted) for part in parts]

    def run(self) -> None:
        """Every rung; whoever fails on the way is out.

        Raises:
            TrainingError: Nobody is left.
        """
        for fraction in self._fractions():
            for fleet in self._fleets:
                fleet.run(lambda one: math.ceil(fraction * one.schedule.steps))  # noqa: B023 - called at once
            if any(fleet.stopped for fleet in self._fleets):
                raise KeyboardInterrupt("the search was interrupted; nothing of it was kept")
            self._note_failures()
            left = self._left()
            for training in left:
                self._losses[training][training.step] = training.measured()["eval_loss"]
            if fraction < 1:
                self._cut(left)

    def conclude(self, base: Base) -> Sweep:
        """The adapter of the best, and what became of all."""
        by_training = {one.training: one for one in self._ready}
        finished = sorted(self._left(), key=self._last)
        for training in finished[1:]:
            give_up(by_training[training], "another configuration came out better")
        adapter = conclude(base, by_training[finished[0]])
        trials = [
            Trial(point, self._losses[one.training], one.training.step, self._ended.get(one.training, "finished"))
            for one, point in zip(self._ready, self._points, strict=True)
        ]
        return Sweep(tuple(sorted(trials, key=lambda one: (math.isinf(one.loss), -one.steps, one.loss))), adapter)

    def _fractions(self) -> list[float]:
        """After which parts of a run there is a rung: the last is its end."""
        steps = min(one.training.schedule.steps for one in self._ready)
        count = int(math.log(len(self._ready), self._search.eta) + 1e-9)
        rungs = [self._search.eta**-number for number in range(count, 0, -1)]
        return [one for one in rungs if one * steps >= self._search.min_steps] + [1.0]

    def _left(self) -> list[Training]:
        return [one.training for one in self._ready if one.training not in self._ended]

    def _last(self, training: Training) -> float:
        losses = self._losses[training]
        return losses[max(losses)]

    def _note_failures(self) -> None:
        failed = {training: error for fleet in self._fleets for training, error in fleet.failed.items()}
        for one in self._ready:
            if one.training in failed and one.training not in self._ended:
                self._ended[one.training] = str(failed[one.training])
                fail(one, failed[one.training])
        if not self._left():
            said = "\n".join(f"  - {one.training.run.name}: {self._ended[one.training]}" for one in self._ready)
            raise TrainingError(f"every configuration failed:\n{said}")

    def _cut(self, left: Sequence[Training]) -> None:
        """Of those that are left, let the better ones go on."""
        by_training = {one.training: one for one in self._ready}
        keep = max(1, len(left) // self._search.eta)
        for training in sorted(left, key=self._last)[keep:]:
            for fleet in self._fleets:
                fleet.give_up(training)
            self._ended[training] = "given up"
            give_up(by_training[training], f"given up after step {training.step}: others were better")
