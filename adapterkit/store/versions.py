"""Finds versions: what a reference means, and why one means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.errors import SelectionError, UnknownNameError

from .names import Reference, parse
from .values import PRESENT, Piece, StoredFile, Version

if TYPE_CHECKING:
    import sqlite3

__all__ = ["NEWEST", "alias_target", "find", "read_files", "read_version", "read_versions"]

COLUMNS = "name, number, digest, manifest, bytes, created, who, why, origin, state, ended, ended_by"
NEWEST = "state = 'present' ORDER BY number DESC LIMIT 1"
"""Of the versions of a name, in SQL."""


def find(db: sqlite3.Connection, reference: str | Version) -> Version:
    """The version that a reference means.

    Raises:
        ConfigError: It is not written as a reference is.
        SelectionError: The beginning of a digest fits several adapters.
        UnknownNameError: It means nothing, or a version whose files are gone.
    """
    wanted = Reference(reference.name, reference.number) if isinstance(reference, Version) else parse(reference)
    if not wanted.name:
        return _by_digest(db, wanted)
    if not db.execute("SELECT 1 FROM versions WHERE name = ? LIMIT 1", (wanted.name,)).fetchone():
        raise _unknown_name(db, wanted.name)
    if wanted.digest:
        return _by_digest(db, wanted)
    if wanted.alias:
        return _present(db, wanted.name, alias_target(db, wanted.name, wanted.alias))
    return _present(db, wanted.name, wanted.number) if wanted.number else _newest(db, wanted.name)


def alias_target(db: sqlite3.Connection, name: str, alias: str) -> int:
    """The number of the version that an alias points at.

    Raises:
        UnknownNameError: There is no such alias.
    """
    row = db.execute("SELECT number FROM aliases WHERE name = ? AND alias = ?", (name, alias)).fetchone()
    if row is None:
        if not db.execute("SELECT 1 FROM versions WHERE name = ? LIMIT 1", (name,)).fetchone():
            raise _unknown_name(db, name)
        known = [f"{name}@{one}" for (one,) in db.execute("SELECT alias FROM aliases WHERE name = ?", (name,))]
        raise UnknownNameError("alias", f"{name}@{alias}", known)
    number: int = row[0]
    return number


def read_version(db: sqlite3.Connection, name: str, number: int) -> Version | None:
    """A version of whatever state; None where the number was never given."""
    found = read_versions(db, "name = ? AND number = ?", (name, number))
    return found[0] if found else None


def read_versions(db: sqlite3.Connection, where: str, values: tuple[object, ...] = ()) -> list[Version]:
    """The versions that fit a condition in SQL, by name and number where it gives no order."""
    order = "" if "ORDER BY" in where else " ORDER BY name, number"
    names = COLUMNS.split(", ")
    rows = db.execute(f"SELECT {COLUMNS} FROM versions WHERE {where}{order}", values)  # noqa: S608 - conditions are ours
    return [Version(**dict(zip(names, row, strict=True))) for row in rows]


def read_files(db: sqlite3.Connection, version: Version) -> dict[str, StoredFile]:
    """The files of a present version, by name."""
    rows = db.execute(
        "SELECT file, contents.sha256, contents.size, blob, pieces.size FROM files"
        " JOIN contents ON contents.sha256 = files.content JOIN pieces ON pieces.content = contents.sha256"
        " WHERE name = ? AND number = ? ORDER BY file, position",
        (version.name, version.number),
    )
    whole: dict[str, tuple[str, int, list[Piece]]] = {}
    for file, sha256, size, blob, part in rows:
        whole.setdefault(file, (sha256, size, []))[2].append(Piece(blob, part))
    return {name: StoredFile(name, sha256, size, tuple(pieces)) for name, (sha256, size, pieces) in whole.items()}


def _newest(db: sqlite3.Connection, name: str) -> Version:
    found = read_versions(db, f"name = ? AND {NEWEST}", (name,))
    if not found:
        raise UnknownNameError("adapter in the store", name, [], reason="every version of it was removed")
    return found[0]


def _present(db: sqlite3.Connection, name: str, number: int) -> Version:
    version = read_version(db, name, number)
    if version is None:
        numbers = db.execute("SELECT number FROM versions WHERE name = ? AND state = 'present'", (name,))
        raise UnknownNameError("version", f"{name}@{number}", [f"{name}@{one}" for (one,) in numbers])
    if version.state != PRESENT:
        reason = f"it was {version.state} at {version.ended} by {version.ended_by}"
        raise UnknownNameError("version", str(version), [], reason=reason)
    return version


def _by_digest(db: sqlite3.Connection, wanted: Reference) -> Version:
    """The newest version of the one adapter whose digest begins so."""
    where = "digest >= ? AND digest < ? AND ? IN ('', name) AND state = 'present'"
    values = (wanted.digest, wanted.digest + "g", wanted.name)  # g follows the last hex digit
    found = read_versions(db, f"{where} ORDER BY created DESC, name, number DESC", values)
    digests = sorted({version.digest for version in found})
    if not digests:
        of = f" of {wanted.name!r}" if wanted.name else ""
        raise UnknownNameError("adapter", f"sha256:{wanted.digest}", [], reason=f"no version{of} has such a digest")
    if len(digests) > 1:
        fitting = ", ".join(f"{version} ({version.digest[:16]})" for version in found[:5])
        raise SelectionError(
            f"the digest sha256:{wanted.digest} fits several adapters, such as {fitting}: give more of it"
        )
    return found[0]


def _unknown_name(db: sqlite3.Connection, name: str) -> UnknownNameError:
    names = [one for (one,) in db.execute("SELECT DISTINCT name FROM versions WHERE state = 'present'")]
    return UnknownNameError("adapter in the store", name, names)
