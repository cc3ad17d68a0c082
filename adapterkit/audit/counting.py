"""Rows one by one, with a progress bar on a terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from adapterkit.data.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["counted", "counting"]

T = TypeVar("T")
TOGETHER = 200


def counted(title: str, rows: Sequence[T]) -> Iterator[T]:
    """The same rows, counted as they are taken."""
    with counting(title, len(rows)) as more:
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            yield from part
            more(len(part))


@contextlib.contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that is called with how many more of ``total`` rows are done."""
    with progress(title) as state:

        def more(rows: int) -> None:
            state.tell(state.done + rows, total)
            state.count(rows)

        yield more
