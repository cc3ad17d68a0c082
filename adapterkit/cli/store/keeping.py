"""``adapterkit store collect | verify``."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapterkit.errors import ConfigError, StoreError
from adapterkit.store import Store

from .common import AsJson, StoreFolder, Who, counted, print_json, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["collect", "verify"]

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def collect(
    *,
    grace: Annotated[str, Parameter(help="How long something is kept after its last use: 7d, 12h, 30m, 0s.")] = "7d",
    keep: Annotated[int, Parameter(help="How many earlier versions each alias can be rolled back to.")] = 5,
    dry_run: Annotated[bool, Parameter(help="Only say what would be deleted.", negative="")] = False,
    who: Who = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Delete the versions and blobs that nothing needs.

    Kept are the versions that an alias points at or can be rolled back to, the newest of each name, the leased ones, and
    what was used within the grace.
    """
    gone = Store(store).collect(_grace(grace), keep=keep, dry_run=dry_run, who=who)
    if as_json:
        print_json(gone)
        return
    for version in gone.versions:
        print(version)
    what = f"{counted(len(gone.versions), 'version')} and {counted(gone.blobs, 'blob')} of {size(gone.bytes)}"
    print(f"{'would delete' if dry_run else 'deleted'} {what}", file=sys.stderr)


def verify(*, store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Read everything, and name what is damaged; exit code 1 where something is."""
    held = Store(store)
    with _progress("verifying") as tell:
        checked = held.check(tell)
    if as_json:
        print_json(checked)
        if checked.problems:
            raise StoreError(f"{held} is damaged")
        return
    for problem in checked.problems:
        print(problem)
    what = [
        (checked.versions, "version"),
        (checked.files, "file"),
        (checked.blobs, "blob"),
        (checked.entries, "journal row"),
    ]
    read = ", ".join(counted(*one) for one in what)
    print(f"read {read}: {size(checked.bytes)}; to be collected: {counted(checked.orphans, 'blob')}", file=sys.stderr)
    if checked.problems:
        raise StoreError(f"{held} is damaged, as listed; adding an adapter once more heals it")


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, and what moves it; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _grace(text: str) -> dt.timedelta:
    match = re.fullmatch(r"(\d{1,6})([dhms])", text)
    if not match:
        raise ConfigError(f"--grace {text!r:.50} does not fit", ["give a number and d, h, m or s, such as 7d or 12h"])
    return dt.timedelta(**{UNITS[match[2]]: int(match[1])})
