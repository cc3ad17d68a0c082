"""A progress bar on a terminal: for each adapter its rows, once for the loss and once for the answers."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["progress"]


@contextlib.contextmanager
def progress(names: Sequence[str], total: int) -> Iterator[Callable[[str, int], None]]:
    """Gives a function that is called with a name and how many more of its ``total`` rows are done."""
    if not sys.stderr.isatty():
        yield lambda _name, _rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bars = {name: bar.add_task(name, total=total) for name in names}
        yield lambda name, rows: bar.advance(bars[name], rows)
