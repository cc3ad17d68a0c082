"""Metrics, as plugins give them, applied to answers."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from adapterkit.errors import AdapterkitError, ConfigError, PluginError, UnknownNameError

from .samples import Ratio, Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adapterkit.contracts import Metric
    from adapterkit.registry import Registry

    from .samples import Numbers, Sampled

__all__ = ["Measured", "choose", "measure"]


@attrs.frozen(eq=False)
class Measured:
    """What metrics say of answers.

    Attributes:
        scores: By name.
        details: What else there is to say, by metric.
    """

    scores: Mapping[str, Sampled]
    details: Mapping[str, Mapping[str, Any]]


def choose(registry: Registry, names: Sequence[str] | None) -> tuple[tuple[Metric, ...], bool]:
    """The metrics of these names, and whether each must be given; without names all, each where it applies.

    Raises:
        UnknownNameError: There is no metric of a name.
    """
    found = {metric.name: metric for metric in registry.metrics()}
    if names is None:
        return tuple(found.values()), False
    for name in names:
        if name not in found:
            raise UnknownNameError("metric", name, found)
    return tuple(found[name] for name in dict.fromkeys(names)), True


def measure(
    metrics: Sequence[Metric], predictions: Sequence[str], references: Sequence[str], *, wanted: bool
) -> Measured:
    """What ``metrics`` say; those that say nothing of these answers are left out, unless each of them is ``wanted``.

    Raises:
        ConfigError: A wanted metric has nothing to score here.
        PluginError: A metric fails, or two give a score of the same name.
    """
    scores: dict[str, Sampled] = {}
    details: dict[str, Mapping[str, Any]] = {}
    for metric in metrics:
        if not wanted and not _called(metric, metric.applies, references):
            continue
        own = _scores(metric, predictions, references)
        if not own and wanted:
            raise ConfigError(
                "options of evaluate do not fit", [f"metrics: {metric.name!r} says nothing of these expected answers"]
            )
        for name in own.keys() & scores.keys():
            raise PluginError(f"metric {metric.name!r} gives a score {name!r}, which another metric gives too")
        scores.update(own)
        if own and metric.details is not None:
            details[metric.name] = dict(_called(metric, metric.details, predictions, references))
    return Measured(scores, details)


def _scores(metric: Metric, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Sampled]:
    if metric.per_row is not None:
        values = [float(one) for one in _called(metric, metric.per_row, predictions, references)]
        if len(values) != len(references):
            raise PluginError(f"metric {metric.name!r} gives {len(values)} values for {len(references)} rows")
        score = Ratio.mean(values)
        return {metric.name: score} if score.counts.any() else {}
    computed = _called(metric, metric.compute, predictions, references)
    return {
        name: Whole(_number(metric, name, value), predictions, references, functools.partial(_on, metric, name))
        for name, value in computed.items()
    }


def _on(metric: Metric, name: str, predictions: Sequence[str], references: Sequence[str], samples: Numbers) -> Numbers:
    """A score of each sample, by the metric's own fast way or one by one; NaN where a sample has nothing to score."""
    if metric.on_samples is not None:
        return np.asarray(_called(metric, metric.on_samples, predictions, references, samples)[name], dtype=float)
    values = []
    for rows in samples.tolist():
        given, expected = [predictions[row] for row in rows], [references[row] for row in rows]
        values.append(float(_called(metric, metric.compute, given, expected).get(name, math.nan)))
    return np.array(values)


def _called(metric: Metric, function: Callable[..., Any] | None, *arguments: Any) -> Any:
    """What a metric's function returns; whatever it raises names the metric."""
    try:
        return function(*arguments)  # type: ignore[misc]
    except AdapterkitError:
        raise
    except Exception as error:
        raise PluginError(
            f"metric {metric.name!r} failed: {type(error).__name__}: {error}; metrics=(…) chooses those that are wanted"
        ) from error


def _number(metric: Metric, name: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise PluginError(f"metric {metric.name!r} gives {name!r} the value {value!r}: that is no score")
    return number
