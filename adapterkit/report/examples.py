"""Answers before and after: what the base said, what the adapter says, and which of them is as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .texts import Folded, fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Example", "Group", "grouped"]

MOST = 40
"""Examples on the page; the rest are in ``evaluation.json``."""
ROOM = 300_000
"""Characters of all examples together."""


@attrs.frozen(kw_only=True)
class Example:
    """A held-out row and both answers; ``base_right`` and ``right`` are None where there is no answer to compare."""

    prompt: Folded
    expected: Folded | None
    base: Folded | None
    adapter: Folded | None
    base_right: bool | None
    right: bool | None

    @property
    def size(self) -> int:
        """Characters on the page."""
        shown = (one for one in (self.prompt, self.expected, self.base, self.adapter) if one is not None)
        return sum(len(one.opening) + len(one.rest) for one in shown)


@attrs.frozen
class Group:
    """Examples that came out alike."""

    title: str
    examples: tuple[Example, ...]
    total: int


TITLES = {
    (True, False): "Right before, not as expected now",
    (False, True): "Put right by the adapter",
    (False, False): "Not as expected, before and after",
    (True, True): "As expected, before and after",
}
"""By whether the base's and the adapter's answers are as expected; what needs a look comes first."""
OTHERS = "Answers of the adapter"


def grouped(evaluation: Mapping[str, Any] | None) -> tuple[tuple[Group, ...], int]:
    """The examples by how they came out, and how many are left out for want of room."""
    rows = (evaluation or {}).get("examples")
    found = [_example(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    by_title: dict[str, list[Example]] = {title: [] for title in (*TITLES.values(), OTHERS)}
    for one in found:
        by_title[_title(one)].append(one)
    kept = _kept(list(by_title.values()))
    groups = [
        Group(title, tuple(one for one in group if id(one) in kept), len(group))
        for title, group in by_title.items()
        if any(id(one) in kept for one in group)
    ]
    return tuple(groups), len(found) - len(kept)


def _kept(groups: Sequence[Sequence[Example]]) -> set[int]:
    """The first of each group, then the second of each, while there is room; by ``id``, as two examples may be equal."""
    kept: set[int] = set()
    room = ROOM
    for place in range(max(map(len, groups))):
        for group in groups:
            if place < len(group) and len(kept) < MOST and group[place].size <= room:
                kept.add(id(group[place]))
                room -= group[place].size
    return kept


def _title(one: Example) -> str:
    if one.base_right is None or one.right is None:
        return OTHERS
    return TITLES[one.base_right, one.right]


def _example(row: Mapping[str, Any]) -> Example:
    expected, base, adapter = row.get("expected"), row.get("base"), row.get("adapter")
    return Example(
        prompt=fold(row.get("prompt", "")),
        expected=None if expected is None else fold(expected),
        base=None if base is None else fold(base),
        adapter=None if adapter is None else fold(adapter),
        base_right=_same(base, expected),
        right=_same(adapter, expected),
    )


def _same(answer: Any, expected: Any) -> bool | None:
    """Whether an answer is the expected one, whitespace around both aside, as ``accuracy`` counts."""
    if not isinstance(answer, str) or not isinstance(expected, str):
        return None
    return answer.strip() == expected.strip()
