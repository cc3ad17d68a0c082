"""The curves of one run."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import attrs

from .charts import Line, Mark, draw, with_smoothing
from .numbers import count
from .series import series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .charts import Chart
    from .reading import RunFolder
    from .series import Series

__all__ = ["charts", "missing_curves", "perplexity"]

STOPPED = {"stopped early": "stopped", "interrupted": "interrupted", "failed": "failed"}
MOST_LOSS = 700.0
"""exp() of more is no float."""


def charts(run: RunFolder) -> tuple[Chart, ...]:
    """The loss over the whole width, the rest beside each other."""
    marks = tuple(_marks(run))
    held_out = series(run.log, "eval_loss")
    loss = [
        *with_smoothing("training", series(run.log, "loss")),
        Line(name="held out", points=held_out.points, color=1),
    ]
    part = functools.partial(draw, small=True, until=run.run.last_step or 0)
    rate = series(run.log, "learning_rate")
    general = perplexity(series(run.log, "general_loss"))
    drawn = [
        draw("loss", "Loss", "nats per token", loss, marks=marks, until=run.run.last_step or 0),
        part("general", "Perplexity of general text", "per token", _line("general text", general, 2)),
        part("rate", "Learning rate", "", _line("learning rate", rate, 3), linear=True),
        part("norm", "Gradient norm", "before clipping", _noisy(run, "gradient norm", "grad_norm", 4)),
        part("speed", "Speed", "tokens per second", _noisy(run, "tokens per second", "tokens_per_second", 5)),
    ]
    return tuple(chart for chart in drawn if chart is not None)


def missing_curves(run: RunFolder) -> Iterator[str]:
    """What has no curve and why; values that no axis can show."""
    if not series(run.log, "loss").points:
        yield "No training loss was logged: the run ended before its first record; logging_steps says how often one is written."
    if not series(run.log, "eval_loss").points:
        yield "No loss on held-out rows: give eval_data or eval_split; eval_steps says how often it is measured."
    if not series(run.log, "general_loss").points:
        yield "No perplexity of general text: give general_data."
    for name in ("loss", "grad_norm", "eval_loss", "general_loss"):
        lost = series(run.log, name).lost
        if lost:
            yield f"{name} was not a finite number {_times(len(lost))}, first at step {count(lost[0])}: the run diverged there."
    if run.log_is_cut:
        yield "The log ends in the middle of a line, as when a process is killed; that one record is lost."


def perplexity(loss: Series) -> Series:
    """The same as perplexities."""
    return attrs.evolve(loss, points=tuple((step, math.exp(min(value, MOST_LOSS))) for step, value in loss.points))


def _marks(run: RunFolder) -> Iterator[Mark]:
    told = run.run
    if told.best_step is not None and told.best_step != told.last_step:
        yield Mark(told.best_step, "kept")
    if told.status in STOPPED and told.last_step:
        yield Mark(told.last_step, STOPPED[told.status])


def _line(name: str, curve: Series, color: int) -> list[Line]:
    return [Line(name=name, points=curve.points, color=color)]


def _noisy(run: RunFolder, name: str, field: str, color: int) -> list[Line]:
    return with_smoothing(name, series(run.log, field), color)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
