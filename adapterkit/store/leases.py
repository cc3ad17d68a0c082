"""Leases: for some minutes a version is kept, whatever else happens."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from typing import TYPE_CHECKING

import attrs

from adapterkit.errors import ConfigError, ConflictError, SelectionError

from . import journal
from .values import PRESENT, Version
from .versions import find, read_version

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from .index import Index

__all__ = ["Lease", "check_unleased", "leasing"]

MOST_SECONDS = 7 * 24 * 3600
"""What is needed longer has an alias; a lease that nobody renews must end."""


@attrs.define(eq=False)
class Lease:
    """Keeps a version from being collected or removed while its time runs, and no longer: its holder may die.

    Attributes:
        version: Which one.
        until: When it ends, unless it is renewed.
    """

    version: Version
    until: str
    _index: Index
    _id: str
    _holder: str
    _seconds: float

    def renew(self, seconds: float | None = None) -> None:
        """Have its time begin anew, with as many seconds as at first or as are given.

        Raises:
            ConflictError: It had ended, and the version is gone.
        """
        until = _after(self._seconds if seconds is None else seconds)
        with self._index.writing() as db:
            there = read_version(db, self.version.name, self.version.number)
            if there is None or there.state != PRESENT:
                raise ConflictError(f"the lease of {self.version} ended at {self.until}, and the version is gone")
            _write(db, self._id, self.version, self._holder, until)
        self.until = until


@contextlib.contextmanager
def leasing(index: Index, reference: str | Version, seconds: float, holder: str) -> Iterator[Lease]:
    """A lease that ends with the block; see :meth:`Store.lease`."""
    lease, until = secrets.token_hex(8), _after(seconds)
    with index.writing() as db:
        version = find(db, reference)
        _write(db, lease, version, holder, until)
    try:
        yield Lease(version, until, index, lease, holder, seconds)
    finally:
        with index.writing() as db:  # the version was used until now: its grace begins here
            db.execute("UPDATE leases SET until = ? WHERE id = ?", (journal.now(), lease))


def check_unleased(db: sqlite3.Connection, version: Version) -> None:
    """Refuse what would take a leased version away.

    Raises:
        SelectionError: Somebody needs it.
    """
    row = db.execute(
        "SELECT holder, until FROM leases WHERE (name, number) = (?, ?) AND until > ? ORDER BY until DESC",
        (version.name, version.number, journal.now()),
    ).fetchone()
    if row:
        raise SelectionError(f"{version} is not removed: {row[0]} has leased it until {row[1]}")


def _write(db: sqlite3.Connection, lease: str, version: Version, holder: str, until: str) -> None:
    db.execute(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (lease, version.name, version.number, holder, until)
    )


def _after(seconds: float) -> str:
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(
            f"seconds={seconds!r} does not fit",
            [f"a lease is for up to {MOST_SECONDS:,} seconds; renew it, or promote the version to an alias"],
        )
    return journal.timestamp(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))
