"""Recognises the shape of rows, and turns them into records."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from adapterkit.errors import DataError, UnknownNameError, suggest

from .cells import plain_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from adapterkit.contracts import DataFormat, Record
    from adapterkit.registry import Registry

    from .rows import Row

__all__ = ["HEAD", "applies", "detect", "iter_records", "list_problems", "to_records"]

HEAD = 1000
"""Rows that are looked at before the first is converted: which columns there are, and which tell rows apart."""
_MOST_PROBLEMS = 10


def to_records(
    rows: Iterable[Row],
    registry: Registry,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
) -> list[tuple[Record, str]]:
    """All of :func:`iter_records`."""
    return list(iter_records(rows, registry, columns, format))


def iter_records(
    rows: Iterable[Row],
    registry: Registry,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
) -> Iterator[tuple[Record, str]]:
    """Every row in canonical form, with its place, one by one.

    Args:
        rows: At least one; the first decides the format of all.
        registry: Where data formats come from.
        columns: The data's column for each field of the format, where they are called otherwise:
            ``{"prompt": "text", "completion": "category"}``. The first thousand rows say which columns there are.
        format: The name of the format, when the first row would not tell.

    Raises:
        DataError: No format fits, at the first row; or rows that cannot be used, after the last: up to ten of them, each
            with its place and reason.
        UnknownNameError: No plugin provides ``format``.
    """
    if columns is not None and not isinstance(columns, Mapping):
        raise DataError(f"columns= maps fields to columns, such as {{'prompt': 'question'}}, and is not {columns!r}")
    mapping = dict(columns or {})
    coming = iter(rows)
    head = list(islice(coming, HEAD))
    formats = _named(registry.formats(), format)
    _check_columns(head, formats, mapping)
    chosen = detect(head[0].cells, formats, mapping) if format is None else formats[0]
    if chosen is None:
        raise DataError(_explain(head, formats, mapping))
    problems: list[str] = []
    count = bad = 0
    for count, row in enumerate(chain(head, coming), 1):  # noqa: B007 - the last one is what is wanted
        try:
            record = _converted(row.cells, chosen, mapping)
        except ValueError as error:
            bad += 1
            problems += [f"{row.where}: {error}"] if bad <= _MOST_PROBLEMS else []
        else:
            if not bad:  # what comes after a row that stops the run is looked at, and is of no use
                yield record, row.where
    if bad:
        what = f"{bad} of {count} rows cannot be used as {chosen.name!r}"
        call = "" if bad < count else _working_call(head, [chosen])
        hint = f"\nSay which column is which, for example: {call}" if call else ""
        raise DataError(list_problems(what, problems, bad) + hint)


def applies(
    row: Mapping[str, Any],
    registry: Registry,
    columns: Mapping[str, str] | None,
    format: str | None,  # noqa: A002 - the word that users know
) -> bool:
    """Whether ``columns`` and ``format`` are meant for rows like this one: it has one of the columns, or reads in the format."""
    if columns:
        return any(column in row for column in columns.values())
    return format is None or _works(row, _named(registry.formats(), format)[0], {})


def detect(
    row: Mapping[str, Any], formats: Iterable[DataFormat], columns: Mapping[str, str] | None = None
) -> DataFormat | None:
    """The first of ``formats`` that ``row`` has the shape of; None when it has none.

    With ``columns``, only formats that have all the fields named there are asked, and they see no cells but their
    fields.
    """
    mapping = columns or {}
    for one in formats:
        asked = not mapping or not one.named or not mapping.keys().isdisjoint(one.named)
        if asked and set(mapping) <= set(one.fields) and one.matches(_view(row, one, mapping)):
            return one
    return None


def list_problems(what: str, problems: Sequence[str], count: int | None = None) -> str:
    """One text for several problems: the first ten, and how many more of all ``count`` there are."""
    shown = "".join(f"\n  - {problem}" for problem in problems[:_MOST_PROBLEMS])
    more = (len(problems) if count is None else count) - _MOST_PROBLEMS
    return f"{what}:{shown}" + (f"\n  and {more} more" if more > 0 else "")


def _named(formats: tuple[DataFormat, ...], name: str | None) -> tuple[DataFormat, ...]:
    if name is None:
        return formats
    chosen = tuple(one for one in formats if one.name == name)
    if not chosen:
        raise UnknownNameError("data format", name, [one.name for one in formats])
    return chosen


def _view(row: Mapping[str, Any], one: DataFormat, columns: Mapping[str, str]) -> dict[str, Any]:
    """What a format sees of a row: with ``columns``, its fields under its own names; else everything."""
    cells = plain_cells(row)
    if not columns:
        return cells
    own = {field: cells[field] for field in one.fields if field in cells and field not in columns.values()}
    return own | {field: cells[column] for field, column in columns.items() if column in cells}


def _converted(row: Mapping[str, Any], one: DataFormat, columns: Mapping[str, str]) -> Record:
    try:
        return one.convert(_view(row, one, columns))
    except KeyError as error:
        field = str(error.args[0])
        column = columns.get(field, field)
        raise ValueError(
            f"has no {column!r}, which {one.name!r} needs as its {field}; columns={{{field!r}: …}} names another column"
        ) from error


def _check_columns(rows: Sequence[Row], formats: Sequence[DataFormat], columns: Mapping[str, str]) -> None:
    known = list(dict.fromkeys(str(column) for row in rows for column in row.cells))
    fields = sorted({field for one in formats for field in one.fields})
    problems = [
        f"{column!r}: no such column{suggest(column, known)} (there are: {', '.join(known)})"
        for column in columns.values()
        if column not in known
    ] + [
        f"{field!r}: no format has such a field{suggest(field, fields)} (formats: {_listing(formats)})"
        for field in columns
        if field not in fields
    ]
    if problems:
        raise DataError(list_problems("columns= does not fit", problems))


def _listing(formats: Iterable[DataFormat]) -> str:
    return "; ".join(f"{one.name} ({', '.join(one.fields)})" for one in formats)


def _explain(rows: Sequence[Row], formats: Sequence[DataFormat], columns: Mapping[str, str]) -> str:
    first = rows[0]
    given = f" with columns={dict(columns)!r}" if columns else ""
    shapes = (
        "".join(f"\n  {one.name}: {', '.join(one.fields)}" for one in formats) or "\n  none: no plugin provides one"
    )
    text = f"{first.where}: no data format fits a row of the columns {', '.join(map(repr, first.cells))}{given}."
    text += f" Formats and their fields:{shapes}"
    call = _working_call(rows, formats)
    return text + (f"\nSay which column is which, for example: {call}" if call else "")


def _working_call(rows: Sequence[Row], formats: Iterable[DataFormat]) -> str:
    """A ``columns=`` that was tried on the first row and works; empty when there is none."""
    ordered = _varied_first(rows)
    for one in (one for one in formats if not one.named):
        for count in range(1, min(len(one.fields), len(ordered)) + 1):
            columns = dict(zip(one.fields[:count], ordered, strict=False))
            if _works(rows[0].cells, one, columns):
                return f"columns={columns!r}"
    return ""


def _works(row: Mapping[str, Any], one: DataFormat, columns: Mapping[str, str]) -> bool:
    try:
        _converted(row, one, columns)
    except (TypeError, ValueError, LookupError, AttributeError):
        return False
    return True


def _varied_first(rows: Sequence[Row]) -> list[str]:
    """The columns that hold something, those with many different values first: questions before labels."""
    sample = [plain_cells(row.cells) for row in rows[:HEAD]]
    columns = [column for column, value in sample[0].items() if value]
    return sorted(columns, key=lambda column: -len({str(row.get(column)) for row in sample}))
