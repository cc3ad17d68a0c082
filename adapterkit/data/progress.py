"""A progress bar on a terminal while many rows are read and encoded."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Progress", "progress"]

PATIENCE = 2.0
"""Seconds before a bar is shown: most files are read by then."""


@attrs.define
class Progress:
    """How far reading is: so much of so much, whatever it is counted in, and so many rows."""

    done: int = 0
    total: int = 0
    rows: int = 0
    show: Callable[[Progress], None] = lambda _: None

    def tell(self, done: int, total: int) -> None:
        """So much of so much has been read."""
        self.done, self.total = done, total

    def count(self, rows: int) -> None:
        """So many more rows are done."""
        self.rows += rows
        self.show(self)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Progress that a bar shows within this block, on a terminal, when it takes its time."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=None, said="")
    started = time.monotonic()

    def show(state: Progress) -> None:
        if time.monotonic() - started > PATIENCE:
            bar.start()
            bar.update(task, completed=state.done, total=state.total or None, said=f"{state.rows:,} rows")

    try:
        yield Progress(show=show)
    finally:
        bar.stop()
