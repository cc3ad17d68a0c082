"""The journal: one row for each change, never altered, each bound to the row before by its digest."""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
import os
import socket
from typing import TYPE_CHECKING

from adapterkit.artifact.markup import one_line
from adapterkit.config import canonical_json
from adapterkit.errors import ConfigError

from .names import MOST_TEXT, check_text
from .values import Entry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

__all__ = ["MOVES", "append", "author", "check_chain", "entries", "latest_moves", "moment", "now", "past", "timestamp"]

COLUMNS = "seq, at, who, action, name, alias, before, after, why, manifest, origin, chain"
MOVES = ("promote", "rollback", "unalias")
"""What changes where an alias points."""


def append(
    db: sqlite3.Connection,
    *,
    action: str,
    name: str,
    who: str,
    alias: str = "",
    before: int | None = None,
    after: int | None = None,
    why: str = "",
    manifest: str = "",
    origin: str = "",
) -> Entry:
    """Write a row, within the caller's transaction."""
    last = db.execute("SELECT seq, at, chain FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    seq, at, chain = last or (0, "", "")
    entry = Entry(
        seq=seq + 1,
        at=max(at, now()),  # a clock may be set back; the journal's order is that of its rows
        who=who,
        action=action,
        name=name,
        alias=alias,
        before=before,
        after=after,
        why=why,
        manifest=manifest,
        origin=origin,
    )
    values = _values(entry)
    db.execute(
        f"INSERT INTO journal ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (*values, _chained(chain, values)),
    )
    return entry


def entries(db: sqlite3.Connection, name: str = "", alias: str = "", number: int | None = None) -> list[Entry]:
    """The rows in their order: all, or those of a name, of one of its aliases, or of one of its versions."""
    where, values = [], []
    for condition, value in (("name = ?", name), ("alias = ?", alias), ("? IN (before, after)", number)):
        if value:
            where.append(condition)
            values.append(value)
    clause = f"WHERE {' AND '.join(where)} " if where else ""
    rows = db.execute(f"SELECT {COLUMNS} FROM journal {clause}ORDER BY seq", values)  # noqa: S608
    return list(_entries(rows))


def latest_moves(db: sqlite3.Connection, at: str = "") -> dict[tuple[str, str], int]:
    """Where every alias points by the journal, or pointed at a moment: the numbers by name and alias."""
    until = "AND at <= ?" if at else ""
    rows = db.execute(
        f"SELECT name, alias, after, max(seq) FROM journal WHERE action IN (?, ?, ?) {until} GROUP BY name, alias",  # noqa: S608
        (*MOVES, *([at] if at else [])),
    )
    return {(name, alias): after for name, alias, after, _ in rows if after is not None}


def past(db: sqlite3.Connection, name: str, alias: str) -> list[int]:
    """The versions that an alias came by, oldest first, the one where it points last; what was rolled back is out of it."""
    trail: list[int] = []
    rows = db.execute("SELECT action, after FROM journal WHERE name = ? AND alias = ? ORDER BY seq", (name, alias))
    for action, after in rows:
        if action == "promote":
            trail.append(after)
        elif action == "rollback":
            trail.pop()
        elif action == "unalias":
            trail.clear()
    return trail


def check_chain(rows: Iterable[Entry]) -> Iterator[str]:
    """What is wrong with the journal's rows, a line for each break."""
    chain, seq, at = "", 0, ""
    for entry in rows:
        if entry.seq != seq + 1:
            yield f"journal: row {entry.seq} follows row {seq}; rows between them are missing"
        elif entry.chain != _chained(chain, _values(entry)):
            yield f"journal: row {entry.seq} is not what was written, or the row before is not"
        elif entry.at < at:
            yield f"journal: row {entry.seq} is of an earlier time than the row before"
        chain, seq, at = entry.chain, entry.seq, entry.at


def now() -> str:
    """This moment as the store writes it."""
    return timestamp(dt.datetime.now(dt.UTC))


def timestamp(moment: dt.datetime) -> str:
    """A moment as the store writes it: such texts sort as the moments do."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(at: dt.datetime | str) -> str:
    """What a caller calls a moment, as the store writes it.

    Raises:
        ConfigError: It is none, or its zone is not said.
    """
    try:
        said = dt.datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        raise ConfigError(f"at={at!r:.80} does not fit", ["give a moment such as 2026-05-01T12:00:00Z"]) from None
    if said.tzinfo is None:
        raise ConfigError(f"at={str(at)!r} does not fit", ["say in which zone, as in 2026-05-01T12:00:00Z or +02:00"])
    return timestamp(said)


def author(who: str | None, why: str = "") -> str:
    """Who it was: what the caller says, else ``user@host``; what they say must fit in a line.

    Raises:
        ConfigError: It does not.
    """
    check_text(who=who or "", why=why)
    if who:
        return who
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        user = str(os.getuid())
    said = f"{user}@{socket.gethostname()}"  # $LOGNAME may say anything
    return one_line(said)[:MOST_TEXT]


def _entries(rows: Iterable[tuple[object, ...]]) -> Iterator[Entry]:
    names = COLUMNS.split(", ")
    for row in rows:
        yield Entry(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]


def _values(entry: Entry) -> tuple[int | str | None, ...]:
    return (
        entry.seq,
        entry.at,
        entry.who,
        entry.action,
        entry.name,
        entry.alias,
        entry.before,
        entry.after,
        entry.why,
        entry.manifest,
        entry.origin,
    )


def _chained(chain: str, values: tuple[int | str | None, ...]) -> str:
    return hashlib.sha256(canonical_json([chain, *values]).encode()).hexdigest()
