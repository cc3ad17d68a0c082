"""Takes adapters in: staged and checked, then their blobs, then the commit that makes them visible."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.files import Folder, find_folder
from adapterkit.artifact.layout import MANIFEST, SIGNATURE
from adapterkit.errors import ArtifactError, StoreError

from . import journal
from .pieces import StoredFiles, cut
from .values import Version
from .versions import NEWEST, read_files, read_versions

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from adapterkit.adapter import Adapter
    from adapterkit.registry import Registry

    from .blobs import Blobs
    from .values import Piece, StoredFile

__all__ = ["BlobGoneError", "Incoming", "alike", "newest", "register", "stage"]

MOST_GAP = 10_000
"""How many numbers a stranger's export may leave out: with the largest one, it would take all that there are."""


class BlobGoneError(Exception):
    """A blob was collected between its writing and the commit: the adapter has to be staged again."""


@attrs.frozen
class Incoming:
    """An adapter whose pieces are written and checked, but known to nobody yet."""

    digest: str
    files: dict[str, StoredFile]
    origin: str = ""
    """Where it comes from, for a policy; empty for what was made here."""

    @property
    def manifest(self) -> str:
        """The sha256 of its manifest."""
        return self.files[MANIFEST].sha256

    @property
    def pieces(self) -> list[Piece]:
        """Everything that it consists of."""
        return [piece for file in self.files.values() for piece in file.pieces]


def stage(
    source: Adapter | str | os.PathLike[str], folder: Path, blobs: Blobs, registry: Registry, origin: str = ""
) -> Incoming:
    """Write an adapter's pieces into ``folder``; one that comes from files goes through the trusted loader.

    What the loader reads are the pieces themselves: what was checked is what is stored. Where a trust policy is in force, a folder
    that comes from nowhere else comes from its true path, as the rule that lets it in goes on to be asked.

    Raises:
        ArtifactError: The adapter is refused.
        StoreError: The disk is full, or the store cannot be written.
    """
    from adapterkit.adapter import Adapter
    from adapterkit.trust import current_policy, read_trusted

    folder.mkdir(exist_ok=True)
    if isinstance(source, Adapter):
        return _stage_saved(source, folder, registry, origin)
    what = f"adapter folder {os.fspath(source)!r}"
    try:
        path = find_folder(source)
        written_here = Folder(path).has(MANIFEST)
        staged = StoredFiles(what, cut(Folder(path), folder) if written_here else {}, blobs, folder)
    except (ArtifactError, OSError) as error:
        raise ArtifactError(f"{what} is refused: {error}") from error
    kept = origin or (str(path) if current_policy() else "")
    if not written_here:  # another program's: it gets a manifest
        adapter = Adapter(*read_trusted(path, registry, origin=origin or str(path)))
        if adapter.copies:  # they would be lost, and with them what tells a base that it is another
            raise ArtifactError(
                f"{what} is refused: it holds copies of the base's own weights ({min(adapter.copies)}), which the base has to "
                "check: let it load the folder, and add the adapter that it gives"
            )
        return _stage_saved(adapter, folder, registry, kept)
    adapter = Adapter(*read_trusted(staged, registry, origin=origin or str(path)))
    return Incoming(adapter.digest, dict(staged.files), kept)


def register(
    db: sqlite3.Connection,
    incoming: Incoming,
    blobs: Blobs,
    *,
    name: str,
    who: str,
    why: str = "",
    number: int = 0,
    action: str = "add",
) -> Version:
    """Make an adapter visible, in the caller's transaction.

    Args:
        db: The tables, within a transaction that writes.
        incoming: The adapter, its blobs in their places.
        blobs: Where they are.
        name: What it is called.
        who: Who adds it.
        why: What they say.
        number: The number that it should have; the next one where it is taken, 0, or so far away that few would be left.
        action: What the journal calls it.

    Raises:
        BlobGoneError: A blob is not there any more.
    """
    if any(not blobs.has(piece.sha256) for piece in incoming.pieces):
        raise BlobGoneError
    (last,) = db.execute("SELECT coalesce(max(number), 0) FROM versions WHERE name = ?", (name,)).fetchone()
    taken = db.execute("SELECT 1 FROM versions WHERE (name, number) = (?, ?)", (name, number)).fetchone()
    given = number if 0 < number <= last + MOST_GAP and not taken else last + 1
    entry = journal.append(
        db, action=action, name=name, who=who, after=given, why=why, manifest=incoming.manifest, origin=incoming.origin
    )
    version = Version(
        name=name,
        number=given,
        digest=incoming.digest,
        manifest=incoming.manifest,
        bytes=sum(file.size for file in incoming.files.values()),
        created=entry.at,
        who=who,
        why=why,
        origin=incoming.origin,
    )
    values = attrs.astuple(version)
    db.execute(f"INSERT INTO versions VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
    for file in incoming.files.values():
        _write_file(db, version, file)
    return version


def alike(db: sqlite3.Connection, incoming: Incoming, name: str) -> list[Version]:
    """The versions of a name that are this adapter already, newest first."""
    where = "name = ? AND manifest = ? AND state = 'present' ORDER BY number DESC"
    found = read_versions(db, where, (name, incoming.manifest))
    return [one for one in found if _signature(read_files(db, one)) == _signature(incoming.files)]


def newest(db: sqlite3.Connection, name: str) -> Version | None:
    """The newest version of a name; None where there is none."""
    found = read_versions(db, f"name = ? AND {NEWEST}", (name,))
    return found[0] if found else None


def _signature(files: dict[str, StoredFile]) -> str:
    return files[SIGNATURE].sha256 if SIGNATURE in files else ""


def _write_file(db: sqlite3.Connection, version: Version, file: StoredFile) -> None:
    known = db.execute("SELECT 1 FROM contents WHERE sha256 = ?", (file.sha256,)).fetchone()
    if not known:
        db.execute("INSERT INTO contents VALUES (?, ?)", (file.sha256, file.size))
        rows = [(file.sha256, place, piece.sha256, piece.size) for place, piece in enumerate(file.pieces)]
        db.executemany("INSERT INTO pieces VALUES (?, ?, ?, ?)", rows)
    db.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (version.name, version.number, file.name, file.sha256))


def _stage_saved(adapter: Adapter, folder: Path, registry: Registry, origin: str) -> Incoming:
    try:
        saved = adapter.save(folder / "adapter", registry=registry)
    except ArtifactError as error:
        if isinstance(error.__cause__, OSError):
            raise StoreError(f"the adapter cannot be written to {str(folder)!r}: {error.__cause__}") from error
        raise
    files = cut(Folder(saved), folder)
    return Incoming(adapter.digest, files, origin)
