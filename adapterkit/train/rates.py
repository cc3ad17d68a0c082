"""Looks for a learning rate: one short run in which it grows from step to step, and nothing of which is kept."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import ConfigError, TrainingError

from .fleet import Fleet
from .forward import recomputing
from .jobs import Job
from .journal import Journal, bars
from .passes import alone
from .preparing import prepare
from .processes import Processes
from .run import ONE_AT_A_TIME, with_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapterkit.base import Base

    from .training import Training

__all__ = ["SET_BY_THE_TEST", "LearningRates", "find_learning_rate", "smoothed", "suggested"]

SET_BY_THE_TEST = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"),
    *("epochs", "max_steps", "logging_steps", "eval_steps", "save_steps", "save_total_limit", "report_to"),
    *("early_stopping_patience", "early_stopping_threshold", "load_best_model_at_end", "max_forgetting"),
)
"""Training options that say how a run goes on, which here is always the same."""
OF_A_RUN = ("output", "resume", "report", "report_rows", "general_data", "eval_data", "eval_split")
"""What a run leaves, and what it is measured on besides: nothing here."""
SMOOTHING = 0.9
"""How much of the smoothed loss each step keeps."""
FEWEST = 10
"""With fewer losses there is no curve to be read."""
BELOW_THE_LOWEST = 10.0
"""The suggestion is so many times below the rate of the lowest loss: there, it is about to rise."""


@attrs.frozen
class LearningRates:
    """What was found.

    Attributes:
        rates: The learning rate of each step that was taken.
        losses: The training loss per token of each, smoothed; in nats.
        suggestion: A learning rate to begin with.
    """

    rates: tuple[float, ...] = attrs.field(repr=False)
    losses: tuple[float, ...] = attrs.field(repr=False)
    suggestion: float


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
    job = Job(data, method=method, **options, learning_rate=low, lr_scheduler_type="constant", warmup_steps=0)
    job.options.update(max_steps=steps, logging_steps=1)  # type: ignore[attr-defined]
    with _prepared(base, job) as training:
        training.decay = torch.optim.lr_scheduler.LambdaLR(
            training.optimizer, lambda step: (high / low) ** (step / (steps - 1))
        )
        fleet = Fleet([training], lambda passes: [alone(each) for each in passes])
        fleet.run()  # a loss that leaves for good, or is no number any more, is where the test ends
    if fleet.stopped:
        raise KeyboardInterrupt
    losses = [record["loss"] for record in training.log.records]
    if len(losses) < min(FEWEST, steps):
        raise TrainingError(f"no learning rate was found from {low:g} on") from fleet.failed.get(training)
    rates = [low * (high / low) ** (step / (steps - 1)) for step in range(len(losses))]
    smooth = smoothed(losses)
    return LearningRates(tuple(rates), smooth, suggested(rates, smooth))
