"""Looks for a learning rate: one short run in which it grows from step to step, and nothing of which is kept."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import ConfigError, TrainingError

from .fleet import Fleet
from .jobs import Job, settled
from .journal import Bars, Journal, bars
from .passes import alone
from .preparing import Around, prepare
from .processes import Processes
from .run import ONE_AT_A_TIME, passing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from adapterkit.base import Base

    from .training import Training

__all__ = ["SET_BY_THE_TEST", "LearningRates", "find_learning_rate", "smoothed", "suggested"]

SET_BY_THE_TEST = (
    *(
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "warmup_steps",
        "warmup_ratio",
        "epochs",
        "max_steps",
    ),
    *("eval_steps", "eval_data", "eval_split", "early_stopping_patience", "early_stopping_threshold"),
    *("load_best_model_at_end", "max_forgetting", "general_data", "logging_steps", "report_to", "output", "resume"),
    *("save_steps", "save_total_limit", "report", "report_rows"),
)
"""Options that say how a run goes on, what it is measured on besides and what it leaves: here, all of that is given."""
SMOOTHING = 0.9
"""How much of the smoothed loss each step keeps."""
FEWEST = 10
"""With fewer losses there is no curve to be read."""
BELOW_THE_LOWEST = 10.0
"""The suggestion is so many times below the rate of the lowest loss: there, the loss is about to rise."""


@attrs.frozen
class LearningRates:
    """What was found.

    Attributes:
        rates: The learning rate of each step that was taken.
        losses: The training loss of each, per token in nats, smoothed.
        suggestion: A learning rate to begin with.
    """

    rates: tuple[float, ...] = attrs.field(repr=False)
    losses: tuple[float, ...] = attrs.field(repr=False)
    suggestion: float

    def to_json(self) -> dict[str, Any]:
        """The suggestion, and the curve as a table."""
        curve = [{"learning_rate": rate, "loss": loss} for rate, loss in zip(self.rates, self.losses, strict=True)]
        return {"suggestion": self.suggestion, "curve": curve}


def find_learning_rate(
    base: Base,
    data: Any,
    *,
    method: str = "lora",
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    **options: Any,
) -> LearningRates:
    """See :meth:`adapterkit.Base.find_learning_rate`."""
    _check(low, high, steps, options)
    rates = [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]
    fixed: dict[str, Any] = {"learning_rate": low, "lr_scheduler_type": "constant", "warmup_steps": 0}
    job = Job(data, method=method, **fixed, max_steps=steps, logging_steps=1, **options)
    with _prepared(base, job) as training:
        training.decay = torch.optim.lr_scheduler.LambdaLR(
            training.optimizer, lambda step: rates[min(step, steps - 1)] / low
        )
        fleet = Fleet([training], lambda passes: [alone(one) for one in passes])
        fleet.run()
    if fleet.stopped:
        raise KeyboardInterrupt
    # a loss that has left for good, or is no number any more, is where the test ends; unless it was so from the start
    losses = [record["loss"] for record in training.log.records]
    if len(losses) < FEWEST:
        raise TrainingError(
            f"no learning rate from {low:g} on is low enough, or something else is wrong: {fleet.failed.get(training)}"
        )
    curve = smoothed(losses)
    return LearningRates(tuple(rates[: len(curve)]), curve, suggested(rates, curve))


def smoothed(losses: Sequence[float]) -> tuple[float, ...]:
    """Their running means, in which older ones count less and less; the first one is itself."""
    found, total = [], 0.0
    for step, loss in enumerate(losses, start=1):
        total = SMOOTHING * total + (1 - SMOOTHING) * loss
        found.append(total / (1 - SMOOTHING**step))
    return tuple(found)


def suggested(rates: Sequence[float], curve: Sequence[float]) -> float:
    """A tenth of the rate at which the smoothed loss was lowest, rounded to two digits.

    The range test is that of Smith, "Cyclical Learning Rates for Training Neural Networks" (2015).
    """
    lowest = min(range(len(curve)), key=curve.__getitem__)
    return float(f"{rates[lowest] / BELOW_THE_LOWEST:.1e}")


@contextlib.contextmanager
def _prepared(base: Base, job: Job) -> Iterator[Training]:
    """A run that nobody is told of and that writes nothing; afterwards the base is as it was."""
    source = base.source
    with ONE_AT_A_TIME, torch.enable_grad(), contextlib.ExitStack() as stack:
        shown = stack.enter_context(bars())
        try:
            (job,) = settled([job])
            one = prepare(base, job, None, Around(Bars(), Processes(), stack))
            one.training.log = Journal(one.training.run, None, shown)
            with passing(one.base, one.training.options):
                yield one.training
        finally:
            if base.source is not source:  # a method has had it loaded in a format of its own
                base.unload_model(source)


def _check(low: float, high: float, steps: int, options: Mapping[str, Any]) -> None:
    """Find what was asked for fit to be done.

    Raises:
        ConfigError: Rates that do not grow, steps that are too few, or options that the test sets itself.
    """
    problems = [f"{name}: the test of learning rates sets it itself" for name in options if name in SET_BY_THE_TEST]
    if not 0.0 < low < high < float("inf"):
        problems.append(f"low, high: rates must grow from above zero, and not from {low!r} to {high!r}")
    if steps < FEWEST:
        problems.append(f"steps: must be at least {FEWEST}, not {steps!r}")
    if problems:
        raise ConfigError("options of find_learning_rate do not fit", problems)
