"""The index: one SQLite file, of which each process has one connection at a time, and a forked one never its parent's."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import threading
import weakref
from typing import TYPE_CHECKING, Final

from adapterkit.artifact.replacing import sync
from adapterkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Index", "schema_problems"]

APPLICATION = 0x41_4B_53_54
"""``AKST``, which ``file`` shows, and which tells the index from any other database."""
SCHEMA = 1
PATIENCE = 60.0
"""Seconds to wait for another process to end its change; a change takes milliseconds."""

TABLES = """
CREATE TABLE versions (
    name TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    digest TEXT NOT NULL,
    manifest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    origin TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'present' CHECK (state IN ('present', 'removed', 'collected')),
    ended TEXT NOT NULL DEFAULT '',
    ended_by TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (name, number)
) WITHOUT ROWID;
CREATE INDEX versions_by_digest ON versions (digest);

-- what files hold: the same content under two names is there once
CREATE TABLE contents (sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pieces (
    content TEXT NOT NULL REFERENCES contents ON DELETE CASCADE,
    position INTEGER NOT NULL,
    blob TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (content, position)
) WITHOUT ROWID;
CREATE INDEX pieces_by_blob ON pieces (blob);
CREATE TABLE files (
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    file TEXT NOT NULL,
    content TEXT NOT NULL REFERENCES contents,
    PRIMARY KEY (name, number, file),
    FOREIGN KEY (name, number) REFERENCES versions
) WITHOUT ROWID;
CREATE INDEX files_by_content ON files (content);

CREATE TABLE aliases (
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    number INTEGER NOT NULL,
    protected INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, alias),
    FOREIGN KEY (name, number) REFERENCES versions
) WITHOUT ROWID;
CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    holder TEXT NOT NULL,
    until TEXT NOT NULL,
    FOREIGN KEY (name, number) REFERENCES versions
) WITHOUT ROWID;

CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    before INTEGER,
    after INTEGER,
    why TEXT NOT NULL,
    manifest TEXT NOT NULL,
    origin TEXT NOT NULL,
    chain TEXT NOT NULL
);
CREATE INDEX journal_by_name ON journal (name, alias, seq);
CREATE TRIGGER journal_stays BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is never changed'); END;
CREATE TRIGGER journal_remains BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is never changed'); END;
"""

_CALLS: Final = threading.RLock()
"""Held by whoever uses a connection; a fork waits for it, since SQLite's locks do not survive one."""
_OPENED: Final[weakref.WeakSet[Index]] = weakref.WeakSet()


class Index:
    """The tables of a store, in a file that is made complete or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The tables as they are at one moment; empty ones where there is no store yet.

        Raises:
            StoreError: The index is damaged, or no index.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """The only writer's view: what the block changes is there when it ends well, and durable; else nothing of it is.

        Args:
            make: Whether to make the store where there is none; without it, there is nothing that could be changed.

        Raises:
            StoreError: The index is damaged or cannot be written, or another process has not let go of it for a minute.
        """
        if make and not self.path.exists():
            self._make()
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with _CALLS:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._identity = None

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with _CALLS:
            try:
                connection = self._open()
                connection.execute(begin)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                self.close()
                raise StoreError(f"the index {str(self.path)!r} {_explained(error)}") from error

    def _open(self) -> sqlite3.Connection:
        """The connection of this process, anew where the file is not the one that was opened."""
        identity = self._identity_now()
        if self._connection is None or identity != self._identity or identity is None:
            self.close()
            self._connection = _connected(self.path) if identity else _empty()
            self._identity = identity
            _OPENED.add(self)
        return self._connection

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"the index {str(self.path)!r} cannot be opened: {error.strerror}") from None
        return state.st_dev, state.st_ino

    def _make(self) -> None:
        """Make the file where there is none: among what is being written, then linked to its place, where it is found complete."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and not self.path.exists():  # it would be taken for the new file's
            raise StoreError(
                f"the index {str(self.path)!r} is gone, and its log is not: put it back, or delete {log.name!r} too"
            )
        try:
            folder = self.path.parent / "staging" / secrets.token_hex(8)
            folder.mkdir(parents=True)
            made = folder / self.path.name
            with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(
                    f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; {TABLES} COMMIT;"
                )
            with contextlib.suppress(FileExistsError):  # another one was faster
                os.link(made, self.path)
            shutil.rmtree(folder, ignore_errors=True)
            sync(self.path.parent)
        except (OSError, sqlite3.Error) as error:
            if not self.path.exists():  # the faster one's collection may have taken the folder away
                raise StoreError(f"the store {str(self.path.parent)!r} cannot be made: {error}") from error


def schema_problems(db: sqlite3.Connection) -> Iterator[str]:
    """Where tables, their indexes and triggers are not those that the store was made with."""
    with contextlib.closing(_empty()) as made:
        wanted, there = _schema(made), _schema(db)
    for kind, name in sorted(wanted.keys() | there.keys()):
        if (kind, name) not in there:
            yield f"index: {kind} {name} is missing"
        elif there[kind, name] != wanted.get((kind, name)):
            yield f"index: {kind} {name} is not what the store was made with"


def _schema(db: sqlite3.Connection) -> dict[tuple[str, str], str]:
    rows = db.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'")
    return {(kind, name): sql for kind, name, sql in rows}


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        _check_kind(connection, path)
        connection.execute("PRAGMA synchronous = FULL")  # committed means on the disk
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise StoreError(f"{str(path)!r} is no index of a store")
    if schema != SCHEMA:
        raise StoreError(f"the index {str(path)!r} has schema {schema}; {SCHEMA} is known here: update adapterkit")


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.executescript(TABLES)
    return connection


def _explained(error: sqlite3.Error) -> str:
    if "locked" in str(error) or "busy" in str(error):
        return f"is held by another process, for more than {PATIENCE:.0f} seconds"
    if "malformed" in str(error) or "not a database" in str(error):
        return f"is damaged: {error}"
    return f"cannot be used: {error}"


def _before_fork() -> None:
    _CALLS.acquire()
    for index in list(_OPENED):
        index.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_CALLS.release, after_in_child=_CALLS.release)
