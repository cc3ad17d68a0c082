"""Scores of labels: F1, and what each class is taken for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .answers import pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    Numbers = np.ndarray[Any, np.dtype[Any]]

__all__ = ["class_details", "macro_f1", "macro_f1_on_samples"]

MOST_CLASSES = 256
"""So many classes have a matrix; for more there are the pairs that were confused."""
AT_ONCE = 2**22
"""Numbers in memory at once while samples are counted."""


def macro_f1(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The mean of each expected answer's F1, ``2 tp / (2 tp + fp + fn)``.

    The classes are the expected answers. A generated text that is none of them counts against the class that was
    expected; it is no class of its own, as it would otherwise weigh as much as a true one.
    """
    labels, given, expected = _coded(predictions, references)
    return {"f1": float(_f1(*_counts(given[None], expected[None], len(labels)))[0])}


def macro_f1_on_samples(predictions: Sequence[str], references: Sequence[str], samples: Numbers) -> dict[str, Numbers]:
    """Macro F1 of each sample, whose classes are those that it expects."""
    labels, given, expected = _coded(predictions, references)
    size = max(1, AT_ONCE // max(len(labels), samples.shape[1]))
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    return {"f1": np.concatenate([_f1(*_counts(given[part], expected[part], len(labels))) for part in parts])}


def class_details(predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Precision, recall and F1 of each class, what was confused with what, and the matrix of it.

    ``matrix`` has a row for each expected class and a column for each given one, in the order of ``classes``, and a last
    column for answers that are no class; it is left out where it would be large.
    """
    labels, given, expected = _coded(predictions, references)
    hits, given_as, expected_as = (one[0] for one in _counts(given[None], expected[None], len(labels)))
    classes = [
        {
            "label": label,
            "rows": int(expected_as[k]),
            "given": int(given_as[k]),
            "precision": float(hits[k] / given_as[k]) if given_as[k] else 0.0,
            "recall": float(hits[k] / expected_as[k]),
            "f1": float(2 * hits[k] / (given_as[k] + expected_as[k])),
        }
        for k, label in enumerate(labels)
    ]
    wrong = Counter((want, got) for got, want in pairs(predictions, references) if got != want)
    confused = [{"expected": want, "given": got, "rows": rows} for (want, got), rows in wrong.most_common()]
    details: dict[str, Any] = {"classes": classes, "confused": confused}
    if len(labels) <= MOST_CLASSES:
        matrix = np.zeros((len(labels), len(labels) + 1), dtype=int)
        np.add.at(matrix, (expected, given), 1)
        details["matrix"] = matrix.tolist()
    return details


def _coded(predictions: Sequence[str], references: Sequence[str]) -> tuple[list[str], Numbers, Numbers]:
    """The classes, and the number of the one that each row was given and expected; given texts of no class have the last."""
    both = pairs(predictions, references)
    labels = sorted({expected for _, expected in both})
    numbers = {label: number for number, label in enumerate(labels)}
    given = np.array([numbers.get(one, len(labels)) for one, _ in both])
    return labels, given, np.array([numbers[one] for _, one in both])


def _counts(given: Numbers, expected: Numbers, classes: int) -> tuple[Numbers, Numbers, Numbers]:
    """For each sample and class, how often it was rightly given, given and expected: ``(samples, classes)``."""
    samples = np.arange(len(given))[:, None] * (classes + 1)
    shape = (len(given), classes + 1)

    def count(which: Numbers) -> Numbers:
        counted: Numbers = np.bincount((samples + which).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        return counted[:, :classes]

    return count(np.where(given == expected, expected, classes)), count(given), count(expected)


def _f1(hits: Numbers, given_as: Numbers, expected_as: Numbers) -> Numbers:
    """The mean F1 of the classes that are expected; tp + fp is how often one was given, tp + fn how often expected."""
    both = given_as + expected_as
    each = np.where(expected_as > 0, 2 * hits / np.maximum(both, 1), 0.0)
    scores: Numbers = each.sum(1) / (expected_as > 0).sum(1)
    return scores
