"""Scores of whole answers."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["correct", "exact_matches", "pairs"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def pairs(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    """Each answer beside the expected one, whitespace around both aside.

    Raises:
        ValueError: There is nothing to score, or not as many of one as of the other.
    """
    if not references:
        raise ValueError("nothing to score: there are no expected answers")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} answers for {len(references)} expected ones")
    return [(given.strip(), expected.strip()) for given, expected in zip(predictions, references, strict=True)]


def correct(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """1 for an answer that equals the expected one, whitespace around both aside, else 0."""
    return [float(given == expected) for given, expected in pairs(predictions, references)]


def exact_matches(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """1 for an answer that is the expected one as SQuAD compares them (Rajpurkar et al. 2016, section 6.1), else 0.

    Case, ASCII punctuation, English articles and how much whitespace there is do not count.
    """
    return [float(normalized(given) == normalized(expected)) for given, expected in pairs(predictions, references)]


def normalized(text: str) -> str:
    """What SQuAD's evaluation script makes of an answer, step by step."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())
