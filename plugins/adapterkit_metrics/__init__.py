"""Scores of generated answers against the expected ones: of labels, of texts and of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Metric, hookimpl

from .answers import correct, exact_matches
from .kinds import are_labels, are_short, are_texts, some_json
from .labels import class_details, macro_f1, macro_f1_on_samples
from .objects import field_details, fields_right, same_values, valid
from .rouge import rouge_1, rouge_2, rouge_l

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_metrics"]


@hookimpl
def adapterkit_metrics() -> Iterator[Metric]:
    """What is scored by default, each where the expected answers are such that it says something."""
    yield Metric(name="accuracy", per_row=correct, summary="the part of answers that are exactly as expected")
    yield Metric(
        name="f1",
        compute=macro_f1,
        on_samples=macro_f1_on_samples,
        details=class_details,
        applies=are_labels,
        summary="for labels: the mean over expected answers of precision and recall's harmonic mean",
    )
    yield Metric(
        name="exact_match",
        per_row=exact_matches,
        applies=are_short,
        summary="for answers of their own: the part that are as expected but for case, punctuation and articles",
    )
    for score, shared in ((rouge_1, "words"), (rouge_2, "pairs of words"), (rouge_l, "words in order")):
        yield Metric(
            name=score.__name__,
            per_row=score,
            applies=are_texts,
            summary=f"for texts: F1 of the {shared} that an answer shares with the expected one",
        )
    yield Metric(
        name="json_valid", per_row=valid, applies=some_json, summary="where JSON is expected: the part that is JSON"
    )
    yield Metric(
        name="json_fields",
        per_row=fields_right,
        details=field_details,
        applies=some_json,
        summary="where JSON is expected: the mean part of the expected fields that have the expected value",
    )
    yield Metric(
        name="json_match",
        per_row=same_values,
        applies=some_json,
        summary="where JSON is expected: the part that says the same, no field more",
    )
