"""What metrics say besides their score: classes, what was confused with what, fields."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from .numbers import count, percent
from .scores import is_fraction, words
from .texts import seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Matrix", "Table", "matrices", "tables"]

MOST_ROWS = 200
OPEN_ROWS = 10
"""Rows of a longer table that are shown at once; the rest is folded."""
MOST_CLASSES = 12
"""A matrix of more classes fits no page; the pairs that were confused say the same in fewer words."""
LONGEST = 80
TITLES = {
    "classes": "by class, the worst first",
    "confused": "what was taken for what",
    "fields": "by field, the worst first",
}
SHADES = 5


@attrs.frozen(kw_only=True)
class Table:
    """Rows of one kind, the worst first.

    Attributes:
        title: What they are.
        columns: Their names, and whether they hold numbers.
        opening: Rows that are shown at once.
        rest: Rows that are folded.
        missing: How many are not on the page.
    """

    title: str
    columns: tuple[tuple[str, bool], ...]
    opening: tuple[tuple[str, ...], ...]
    rest: tuple[tuple[str, ...], ...] = ()
    missing: int = 0


@attrs.frozen(kw_only=True)
class Matrix:
    """How often each expected class was answered with each class, and with none; each cell with its shade from 0 to 5."""

    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, int, bool], ...]], ...]


def matrices(evaluation: Mapping[str, Any] | None) -> Iterator[Matrix]:
    """The matrices that are small enough to read."""
    for found in _details(evaluation, "details").values():
        classes, matrix = found.get("classes"), found.get("matrix")
        if not isinstance(classes, list) or not isinstance(matrix, list) or not 1 < len(classes) <= MOST_CLASSES:
            continue
        labels = tuple(_short(one.get("label")) for one in classes if isinstance(one, dict))
        if len(labels) == len(matrix) and all(_is_row(row, len(labels) + 1) for row in matrix):
            rows = (
                (label, tuple((cell, _shade(cell, row), here == there) for there, cell in enumerate(row)))
                for here, (label, row) in enumerate(zip(labels, matrix, strict=True))
            )
            yield Matrix(labels=labels, rows=tuple(rows))


def tables(evaluation: Mapping[str, Any] | None) -> Iterator[Table]:
    """Every list of flat objects among the details, as a table; classes and fields have the base's figure beside theirs."""
    base = _details(evaluation, "base_details")
    for metric, found in _details(evaluation, "details").items():
        for name, rows in found.items():
            flat = [row for row in rows if _is_flat(row)] if isinstance(rows, list) else []
            if flat:
                yield _table(f"{words(metric)}: {TITLES.get(name, words(name))}", flat, base.get(metric, {}).get(name))


def _table(title: str, rows: Sequence[Mapping[str, Any]], base: Any) -> Table:
    columns = list(rows[0])
    key, telling = columns[0], columns[-1]
    beside = {row.get(key): row.get(telling) for row in base if _is_flat(row)} if isinstance(base, list) else {}
    with_base = bool(beside) and _is_share(telling)
    if _is_share(telling):
        rows = sorted(rows, key=lambda row: _share(row.get(telling)))
    shown = [
        (
            *(_cell(name, row.get(name)) for name in columns),
            *((_cell(telling, beside.get(row[key])),) if with_base else ()),
        )
        for row in rows[:MOST_ROWS]
    ]
    return Table(
        title=title,
        columns=(
            *((words(name), not isinstance(rows[0][name], str)) for name in columns),
            *(((f"{words(telling)}, base", True),) if with_base else ()),
        ),
        opening=tuple(shown[:OPEN_ROWS]),
        rest=tuple(shown[OPEN_ROWS:]),
        missing=len(rows) - len(shown),
    )


def _share(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.inf


def _details(evaluation: Mapping[str, Any] | None, name: str) -> dict[str, dict[str, Any]]:
    found = (evaluation or {}).get(name)
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _is_flat(row: Any) -> bool:
    return isinstance(row, dict) and bool(row) and not any(isinstance(one, (dict, list)) for one in row.values())


def _is_row(row: Any, length: int) -> bool:
    return isinstance(row, list) and len(row) == length and all(type(cell) is int and cell >= 0 for cell in row)


def _is_share(name: str) -> bool:
    return is_fraction(name) or name == "right"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return percent(value) if _is_share(name) else count(value) if value == round(value) else f"{value:.3g}"
    return _short(value)


def _short(value: Any) -> str:
    text = seen(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _shade(cell: int, row: Sequence[int]) -> int:
    return -(-cell * SHADES // max(sum(row), 1))
