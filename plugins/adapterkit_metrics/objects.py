"""Scores of JSON: whether an answer is any, and how many of the expected fields it has right."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from .answers import pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["field_details", "fields_right", "parse_structure", "same_values", "valid"]

NOT_JSON = object()


def parse_structure(text: str) -> Any:
    """The JSON object or list that ``text`` is; None for anything else, numbers and single words included."""
    value = _parsed(text)
    return value if isinstance(value, (dict, list)) else None


def valid(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """1 for an answer that is JSON and nothing besides, else 0; nothing where no object or list is expected."""
    return [
        math.nan if parse_structure(want) is None else float(_parsed(got) is not NOT_JSON)
        for got, want in pairs(predictions, references)
    ]


def same_values(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """1 for an answer with the same value as the expected one, whatever the order of its fields and its layout, else 0."""
    return [
        math.nan if parse_structure(want) is None else float(_all_same(parse_structure(got), parse_structure(want)))
        for got, want in pairs(predictions, references)
    ]


def fields_right(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """The part of the expected fields whose value is as expected; fields within fields and items of lists count each."""
    scores = []
    for got, want in pairs(predictions, references):
        right = _compared(got, want)
        scores.append(math.nan if right is None else sum(right.values()) / len(right))
    return scores


def field_details(predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """For each expected field, in how many rows it is expected and the part of them that have it right."""
    rows: dict[str, list[bool]] = defaultdict(list)
    for got, want in pairs(predictions, references):
        by_field: dict[str, list[bool]] = defaultdict(list)
        for path, right in (_compared(got, want) or {}).items():
            by_field[_name(path)].append(right)
        for name, found in by_field.items():
            rows[name].append(all(found))  # items of one list are one field
    return {"fields": [{"field": k, "rows": len(v), "right": sum(v) / len(v)} for k, v in sorted(rows.items())]}


def _compared(got: str, want: str) -> dict[tuple[Any, ...], bool] | None:
    """By the place of each expected value, whether the answer has it there; None where no object or list is expected."""
    expected = parse_structure(want)
    if expected is None:
        return None
    given = dict(_leaves(parse_structure(got)))
    return {path: path in given and _same(given[path], value) for path, value in _leaves(expected)}


def _all_same(given: Any, expected: Any) -> bool:
    mine, wanted = dict(_leaves(given)), dict(_leaves(expected))
    return mine.keys() == wanted.keys() and all(_same(mine[path], one) for path, one in wanted.items())


def _leaves(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value that holds no others, and every empty object or list, with its place."""
    stack: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while stack:
        path, one = stack.pop()
        inner = tuple(one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ())
        if inner:
            stack.extend(((*path, key), part) for key, part in inner)
        else:
            yield path, one


def _name(path: tuple[Any, ...]) -> str:
    """A field as people write it: ``address.city``, and ``items[]`` for what is in a list."""
    name = "".join("[]" if isinstance(part, int) else f".{part}" for part in path)
    return name.removeprefix(".") or "(all of it)"


def _same(given: Any, expected: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are one number, but 1 and true are two values, which Python takes for one."""
    return isinstance(given, bool) == isinstance(expected, bool) and bool(given == expected)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # what is nested beyond Python's depth is nothing that anybody asked for
        return NOT_JSON


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
