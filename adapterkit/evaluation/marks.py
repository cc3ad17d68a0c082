"""What people marked on the page of a comparison, summed up."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import DataError

from .significance import sign_test

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

__all__ = ["Marked", "Marks", "read_marks", "sum_up"]

KIND = "adapterkit marks"
SCHEMA = 1


@attrs.frozen
class Marks:
    """One reader's marks.

    Attributes:
        comparison: Which comparison they are of.
        adapters: Its names, the base's among them.
        best: By row, the name of the best answer; None for a tie.
        blind: How many of them were made while names were hidden.
    """

    comparison: str
    adapters: tuple[str, ...]
    best: dict[int, str | None]
    blind: int


@attrs.frozen(kw_only=True)
class Marked:
    """How often people found the answer of one better than that of another.

    Attributes:
        first: The name of one.
        second: The name of the other.
        better: How often the first was best.
        worse: How often the second was best.
        ties: How often no answer was best.
        p_value: How often fair coins would be so uneven, or more; ties aside, two-sided (the sign test).
    """

    first: str
    second: str
    better: int
    worse: int
    ties: int
    p_value: float


def read_marks(path: str | os.PathLike[str]) -> Marks:
    """The marks in a file that the page wrote.

    Raises:
        DataError: It cannot be read, or is no such file.
    """
    try:
        return _checked(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"marks {str(path)!r} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} holds no marks ({error}); give the file that `Download marks` wrote on the page of a comparison"
        ) from error


def sum_up(marks: Iterable[Marks]) -> list[Marked]:
    """The marks of all readers, for each two adapters; one that is best says nothing of two others.

    Raises:
        DataError: They are of different comparisons, or there are none.
    """
    every = list(marks)
    if not every or not any(one.best for one in every):
        raise DataError("there are no marks: nothing was marked on the page")
    if len({one.comparison for one in every}) > 1:
        raise DataError(
            "these marks are of different comparisons, whose rows or answers are not the same; sum up each by itself"
        )
    counts = Counter(best for one in every for best in one.best.values())
    return [_marked(first, second, counts) for second, first in combinations(every[0].adapters, 2)]


def _marked(first: str, second: str, counts: Counter[str | None]) -> Marked:
    better, worse = counts[first], counts[second]
    return Marked(
        first=first, second=second, better=better, worse=worse, ties=counts[None], p_value=sign_test(better, worse)
    )


def _checked(found: Any) -> Marks:
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ValueError(f"no {KIND!r} in it")
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema {found['schema']!r} is not {SCHEMA}")
    names: Sequence[str] = found["adapters"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("adapters must be a list of names")
    best: dict[int, str | None] = {}
    for one in found["marks"]:
        row, name = one["row"], one["best"]
        if type(row) is not int or (name is not None and name not in names):
            raise ValueError(f"a mark for {name!r} in row {row!r} of {names!r}")
        if row in best:
            raise ValueError(f"row {row} is marked twice")
        best[row] = name
    return Marks(str(found["comparison"]), tuple(names), best, sum(one.get("blind") is True for one in found["marks"]))
