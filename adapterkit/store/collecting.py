"""Removal, and the collection of what nothing needs any more."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING

from adapterkit.errors import ConfigError, SelectionError

from . import journal
from .leases import check_unleased
from .values import COLLECTED, REMOVED, Collected, Version
from .versions import find, read_versions

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from .blobs import Blob, Blobs
    from .index import Index

__all__ = ["KEEP", "collect", "remove"]

KEEP = 5
"""How many versions before the present one are kept for each alias, so that it can be rolled back."""
BATCH = 500
"""Blobs that are deleted while nobody else can write: some milliseconds."""


def remove(db: sqlite3.Connection, reference: str | Version, why: str, who: str) -> Version:
    """Take a version away, in the caller's transaction; see :meth:`Store.remove`."""
    version = find(db, reference)
    pointing = db.execute("SELECT alias FROM aliases WHERE (name, number) = (?, ?)", (version.name, version.number))
    if aliases := [f"{version.name}@{alias}" for (alias,) in pointing]:
        raise SelectionError(f"{version} is not removed: {', '.join(aliases)} points at it; move or delete that first")
    check_unleased(db, version)
    return _end(db, version, REMOVED, why, who)


def collect(index: Index, blobs: Blobs, *, grace: dt.timedelta, keep: int, dry_run: bool, who: str) -> Collected:
    """Delete what nothing needs; see :meth:`Store.collect`."""
    if grace < dt.timedelta(0) or keep < 0:
        raise ConfigError("the collection does not fit", [f"grace={grace} and keep={keep}: neither may be below 0"])
    if not index.path.exists():
        return Collected()
    until = dt.datetime.now(dt.UTC) - grace
    ended: list[Version] = []
    gone: list[Blob] = []
    with contextlib.suppress(_UndoneError), index.writing() as db:
        db.execute("DELETE FROM leases WHERE until < ?", (journal.timestamp(until),))
        ended = [_end(db, version, COLLECTED, "", who) for version in _unneeded(db, journal.timestamp(until), keep)]
        if dry_run:
            gone = _unneeded_blobs(db, _old(blobs, until))
            raise _UndoneError
    if not dry_run:
        gone = _delete(index, blobs, until)
    left = blobs.clear(until.timestamp(), dry_run=dry_run)
    return Collected(versions=tuple(ended), blobs=len(gone), bytes=sum(one.size for one in gone), staging=left)


class _UndoneError(Exception):
    """Ends a dry run, and its transaction with it."""


def _unneeded(db: sqlite3.Connection, until: str, keep: int) -> list[Version]:
    """The versions that no alias needs, now or to be rolled back, that are not the newest, not leased, and not used since."""
    needed: set[tuple[str, int]] = set()
    for name, alias in db.execute("SELECT name, alias FROM aliases").fetchall():
        trail = list(dict.fromkeys(reversed(journal.past(db, name, alias))))
        needed.update((name, number) for number in trail[: keep + 1])
    needed.update(db.execute("SELECT name, max(number) FROM versions WHERE state = 'present' GROUP BY name"))
    needed.update(db.execute("SELECT name, number FROM leases"))
    needed.update(db.execute("SELECT name, before FROM journal WHERE at >= ? AND alias != ''", (until,)))
    old = read_versions(db, "state = 'present' AND created < ?", (until,))
    return [version for version in old if (version.name, version.number) not in needed]


def _end(db: sqlite3.Connection, version: Version, state: str, why: str, who: str) -> Version:
    """Let go of a version's files: its row stays, and says when and by whom."""
    action = "remove" if state == REMOVED else "collect"
    entry = journal.append(db, action=action, name=version.name, before=version.number, why=why, who=who)
    key = (version.name, version.number)
    db.execute(
        "UPDATE versions SET state = ?, ended = ?, ended_by = ? WHERE (name, number) = (?, ?)",
        (state, entry.at, who, *key),
    )
    contents = db.execute("SELECT content FROM files WHERE (name, number) = (?, ?)", key).fetchall()
    db.execute("DELETE FROM files WHERE (name, number) = (?, ?)", key)
    db.executemany(
        "DELETE FROM contents WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM files WHERE content = ?1)", contents
    )
    db.execute("DELETE FROM leases WHERE (name, number) = (?, ?)", key)
    return read_versions(db, "name = ? AND number = ?", key)[0]


def _delete(index: Index, blobs: Blobs, until: dt.datetime) -> list[Blob]:
    """Delete the blobs that no version needs, while nobody can begin to need one."""
    gone: list[Blob] = []
    old = _old(blobs, until)
    for start in range(0, len(old), BATCH):
        with index.writing() as db:
            unneeded = _unneeded_blobs(db, old[start : start + BATCH])
            gone += [one for one in unneeded if blobs.used(one.sha256) == one.used and blobs.remove(one.sha256)]
    return gone


def _old(blobs: Blobs, until: dt.datetime) -> list[Blob]:
    return [blob for blob in blobs.all() if blob.used < until.timestamp()]


def _unneeded_blobs(db: sqlite3.Connection, blobs: Sequence[Blob]) -> list[Blob]:
    needed = "SELECT 1 FROM pieces WHERE blob = ? LIMIT 1"
    return [blob for blob in blobs if not db.execute(needed, (blob.sha256,)).fetchone()]
