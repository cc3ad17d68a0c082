"""What kind of answers a data set expects, which decides the scores that say something of it."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from .objects import parse_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["are_labels", "are_short", "are_texts", "some_json"]

SHORT = 4
"""Words that a label has on average at most, where it is not known by coming again and again."""


def are_labels(references: Sequence[str]) -> bool:
    """Whether each is one of a few, or they are as short as labels are."""
    return not some_json(references) and (_recur(references) or _words(references) <= SHORT)


def are_short(references: Sequence[str]) -> bool:
    """Whether most rows expect an answer of their own that is no JSON: a name, a number, a sentence."""
    return not some_json(references) and not _recur(references)


def are_texts(references: Sequence[str]) -> bool:
    """Whether most rows expect a text of their own, of several words."""
    return are_short(references) and _words(references) > SHORT


def some_json(references: Sequence[str]) -> bool:
    """Whether any is a JSON object or list."""
    return any(parse_structure(one) is not None for one in references)


def _recur(references: Sequence[str]) -> bool:
    return len({one.strip() for one in references}) * 2 <= len(references)


def _words(references: Sequence[str]) -> float:
    return fmean(len(one.split()) for one in references) if references else 0.0
