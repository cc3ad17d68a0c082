"""Fits the numbers that no shape tells to runs that were measured."""

from __future__ import annotations

import functools
import json
import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.config import build_config
from adapterkit.registry import default_registry
from adapterkit.train.options import split_options

from .calibration import Calibration, gib, measurements
from .memory import memory_of
from .rehearsal import Row
from .rehearsals import Rehearsals
from .skeleton import BaseShape
from .speed import seconds_of_pass, seconds_of_update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .calibration import Measured
    from .devices import Device
    from .rehearsal import Step

__all__ = ["estimate_of", "fit"]

SPEEDS = ("matrices", "attention", "bandwidth", "launch")
SHARES, MOST_SHARE = ("matrices", "attention", "bandwidth"), 0.95
ROUNDS = 60


def estimate_of(
    run: Measured, bases: Mapping[str, Any], device: Device, calibration: Calibration | None = None
) -> dict[str, float]:
    """What a plan says of a run: ``allocated`` and ``reserved`` in GiB, and ``tokens_per_second``."""
    known = calibration or measurements().fitted
    step = _step(run, bases, bf16=device.bf16)
    memory = memory_of(step, device, known)
    return {
        "allocated": gib(memory.allocated),
        "reserved": gib(memory.reserved),
        "tokens_per_second": _speed(step, run, device, known),
    }


def fit(runs: Sequence[Measured], bases: Mapping[str, Any], device: Device, *, context: float) -> Calibration:
    """The numbers that come nearest to what the runs took, by the mean of relative errors.

    A mean of errors, not of their squares: one run that something else disturbed moves them little.
    """
    found = Calibration(context=context)
    steps = {id(run): _step(run, bases, bf16=device.bf16) for run in runs}

    def off_in_memory(one: Calibration) -> float:
        return fmean(abs(gib(memory_of(steps[id(run)], device, one).allocated) / run.allocated - 1) for run in runs)

    def off_in_cache(one: Calibration) -> float:
        return fmean(abs(gib(memory_of(steps[id(run)], device, one).reserved) / run.reserved - 1) for run in runs)

    def off_in_time(one: Calibration) -> float:
        timed = [run for run in runs if run.tokens_per_second]
        return fmean(abs(math.log(_speed(steps[id(run)], run, device, one) / run.tokens_per_second)) for run in timed)

    found = _nearest(found, ("slack",), off_in_memory)
    found = _nearest(found, ("cached", "cached_share"), off_in_cache)
    found = _nearest(found, SPEEDS, off_in_time)
    return Calibration(**{name: float(f"{value:.4g}") for name, value in attrs.asdict(found).items()})


def _nearest(start: Calibration, names: Sequence[str], off: Callable[[Calibration], float]) -> Calibration:
    """Go up or down with one number after the other as long as that is nearer, in ever smaller steps."""
    best, least, size = start, off(start), 0.5
    for _ in range(ROUNDS):
        before = least
        for name in names:
            for times in (1 + size, 1 / (1 + size)):
                value = getattr(best, name) * times
                if name in SHARES and value > MOST_SHARE:
                    continue  # nothing is faster than its data sheet
                tried = attrs.evolve(best, **{name: value})
                error = off(tried)
                if error < least:
                    best, least = tried, error
        size = size if least < before else size / 2
    return best


@functools.cache
def _rehearsals(base: str) -> Rehearsals:
    from transformers import LlamaConfig

    rope = {"rope_type": "default", "rope_theta": 5e5}
    config = LlamaConfig(**json.loads(base), max_position_embeddings=8192, rope_parameters=rope)
    return Rehearsals(BaseShape(name="a Llama", config=config, dtype=torch.bfloat16), default_registry(), fused=True)


def _step(run: Measured, bases: Mapping[str, Any], *, bf16: bool) -> Step:
    method = default_registry().method(run.method)
    _, options = split_options(method, {"batch_size": run.rows, "max_length": run.length, "bf16": bf16, **run.options})
    config: Any = build_config(method.config, {}, what="options")
    rehearsals = _rehearsals(json.dumps(bases[run.base]))
    return rehearsals.step(method, config, options, [Row(run.length, run.length - 1)] * run.rows, packed=run.packed)


def _speed(step: Step, run: Measured, device: Device, calibration: Calibration) -> float:
    once = seconds_of_pass(step, device, calibration) or math.inf
    return run.rows * run.length / (step.passes * once + seconds_of_update(step, device, calibration))
