"""A progress bar on a terminal while many layers are merged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["shown"]

T = TypeVar("T")
FEW = 8
"""So many layers are merged before anybody could read a bar."""


def shown(title: str, items: Sequence[T]) -> Iterator[T]:
    """The items one by one, with a bar on standard error where that is a terminal."""
    if len(items) <= FEW or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, title, console=Console(stderr=True), transient=True)
