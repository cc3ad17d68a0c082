"""Scores of generated answers against the expected ones: accuracy and F1."""

from __future__ import annotations

from collections import Counter
from math import fsum
from typing import TYPE_CHECKING

from adapterkit import Metric, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["accuracy", "adapterkit_metrics", "f1"]


@hookimpl
def adapterkit_metrics() -> Iterator[Metric]:
    """Accuracy and macro F1 of whole answers."""
    yield Metric(name="accuracy", compute=accuracy, summary="the part of answers that are exactly as expected")
    yield Metric(
        name="f1", compute=f1, summary="the mean over expected answers of precision and recall's harmonic mean"
    )


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The part of answers that equal the expected ones, whitespace around both aside."""
    pairs = _pairs(predictions, references)
    return {"accuracy": sum(given == expected for given, expected in pairs) / len(pairs)}


def f1(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Macro F1: the mean of each expected answer's F1, ``2 tp / (2 tp + fp + fn)``.

    The classes are the expected answers. A generated text that is none of them counts against the class that was
    expected; it is no class of its own, as it would otherwise weigh as much as a true one.
    """
    pairs = _pairs(predictions, references)
    hits = Counter(given for given, expected in pairs if given == expected)
    given_as, expected_as = Counter(given for given, _ in pairs), Counter(expected for _, expected in pairs)
    # tp + fp is how often a class was given, tp + fn how often it was expected
    scores = [2 * hits[label] / (given_as[label] + expected_as[label]) for label in sorted(expected_as)]
    return {"f1": fsum(scores) / len(scores)}


def _pairs(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    if not references:
        raise ValueError("nothing to score: there are no expected answers")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} answers for {len(references)} expected ones")
    return [(given.strip(), expected.strip()) for given, expected in zip(predictions, references, strict=True)]
