"""Reads a whole store, and names what is damaged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from adapterkit.artifact.layout import MANIFEST, MOST_JSON_BYTES
from adapterkit.errors import ArtifactError

from . import journal
from .index import schema_problems
from .pieces import StoredFiles
from .values import COLLECTED, PRESENT, REMOVED, Checked, StoredFile, Version
from .versions import read_files, read_version, read_versions

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from .blobs import Blobs
    from .index import Index
    from .values import Entry, Piece

__all__ = ["check"]

CHUNK = 1 << 20
STATES = {"remove": REMOVED, "collect": COLLECTED}
ADDITIONS = ("add", "import")
PROTECTIONS = ("protect", "unprotect")
FIELDS = ("state", "created", "who", "why", "manifest", "origin", "ended", "ended_by")
"""What the journal knows of a version, and the index too."""
UNKNOWN = {**dict.fromkeys(FIELDS, ""), "state": "unknown"}


def check(index: Index, blobs: Blobs, tell: Callable[[int, int], None] | None = None) -> Checked:
    """Look at every row, every blob and every file; see :meth:`Store.check`."""
    problems: list[str] = []
    with index.reading() as db:
        problems += schema_problems(db)
        problems += _index_problems(db)
        versions = read_versions(db, "state = 'present'")
        files = {str(version): read_files(db, version) for version in versions}
        entries = journal.entries(db)
        problems += journal.check_chain(entries)
        problems += _disagreements(db, entries)
    contents = {file.sha256: file for held in files.values() for file in held.values()}
    broken = _broken(contents, blobs, tell or (lambda _done, _total: None))
    for version in versions:
        held = files[str(version)]
        found = list(_version_problems(version, held, broken, blobs))
        if found and _is_present(index, version):  # it may have been collected meanwhile
            problems += found
    problems += [f"{path.name!r} lies among the blobs, and is none" for path in blobs.strange()]
    needed = {piece.sha256: piece.size for file in contents.values() for piece in file.pieces}
    return Checked(
        versions=len(versions),
        files=len(contents),
        blobs=len(needed),
        bytes=sum(needed.values()),
        entries=len(entries),
        orphans=sum(1 for blob in blobs.all() if blob.sha256 not in needed),
        problems=tuple(problems),
    )


def _index_problems(db: sqlite3.Connection) -> Iterator[str]:
    for (said,) in db.execute("PRAGMA integrity_check(20)"):
        if said != "ok":
            yield f"index: {said}"
    for table, _, parent, _ in db.execute("PRAGMA foreign_key_check"):
        yield f"index: a row of {table} belongs to no row of {parent}"
    for (sha256,) in db.execute("SELECT sha256 FROM contents WHERE sha256 NOT IN (SELECT content FROM files)"):
        yield f"index: file {sha256} belongs to no version"
    for sha256, size, whole in db.execute(
        "SELECT sha256, contents.size, coalesce(sum(pieces.size), -1) AS whole FROM contents"
        " LEFT JOIN pieces ON content = sha256 GROUP BY sha256 HAVING whole != contents.size"
    ):
        yield f"index: file {sha256} has {size} bytes, and its pieces {max(whole, 0)}"
    for name, number in db.execute(
        "SELECT name, number FROM versions AS v WHERE (state = 'present') != EXISTS"
        " (SELECT 1 FROM files AS f WHERE (f.name, f.number, f.file) = (v.name, v.number, ?))",
        (MANIFEST,),
    ):
        yield f"index: {name}@{number} has no files, or files although it is gone"
    for name, number, size, whole in db.execute(
        "SELECT name, number, bytes, sum(size) AS whole FROM versions JOIN files USING (name, number)"
        " JOIN contents ON sha256 = content GROUP BY name, number HAVING whole != bytes"
    ):
        yield f"index: {name}@{number} has {size} bytes, and its files {whole}"


def _disagreements(db: sqlite3.Connection, entries: list[Entry]) -> Iterator[str]:
    """Where the tables are not what the journal's changes make of them."""
    said = _replayed(entries)
    written = {str(one): {field: getattr(one, field) for field in FIELDS} for one in read_versions(db, "true")}
    for version in sorted(said.keys() | written.keys()):
        there, here = said.get(version, UNKNOWN), written.get(version, UNKNOWN)
        if there["state"] != here["state"]:
            yield f"journal: {version} is {there['state']} by the journal, {here['state']} by the index"
            continue
        for field in FIELDS[1:]:
            if there[field] != here[field]:
                yield f"journal: {version}: {field} is {there[field]!r} by the journal, {here[field]!r} by the index"
    rows = db.execute("SELECT name, alias, number, protected FROM aliases")
    pointing = {(name, alias): (number, bool(protected)) for name, alias, number, protected in rows}
    moves = journal.latest_moves(db)
    protections = {(one.name, one.alias): one.action == "protect" for one in entries if one.action in PROTECTIONS}
    for name, alias in sorted(pointing.keys() | moves.keys()):
        (number, protected), moved = pointing.get((name, alias), (None, False)), moves.get((name, alias))
        if number != moved:
            yield f"journal: {name}@{alias} points at {moved} by the journal, at {number} by the index"
        if protected != protections.get((name, alias), False):
            yield f"journal: whether {name}@{alias} is protected is {not protected} by the journal, {protected} by the index"


def _replayed(entries: list[Entry]) -> dict[str, dict[str, str]]:
    """What the index must say of every version, as far as the journal knows."""
    said: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.action in ADDITIONS:
            values = (PRESENT, entry.at, entry.who, entry.why, entry.manifest, entry.origin, "", "")
            said[f"{entry.name}@{entry.after}"] = dict(zip(FIELDS, values, strict=True))
        elif entry.action in STATES:
            ended = {"state": STATES[entry.action], "ended": entry.at, "ended_by": entry.who}
            before = f"{entry.name}@{entry.before}"
            said[before] = {**said.get(before, UNKNOWN), **ended}
    return said


def _broken(contents: dict[str, StoredFile], blobs: Blobs, tell: Callable[[int, int], None]) -> dict[str, list[str]]:
    """What is wrong with files, by the sha256 of those where something is."""
    found: dict[str, list[str]] = {}
    done, total = 0, sum(file.size for file in contents.values())
    for sha256, file in contents.items():
        if said := _file_problems(file, blobs):
            found[sha256] = said
        done += file.size
        tell(done, total)
    return found


def _file_problems(file: StoredFile, blobs: Blobs) -> list[str]:
    whole = hashlib.sha256()
    said = [problem for piece in file.pieces if (problem := _piece_problem(piece, blobs, whole))]
    if not said and whole.hexdigest() != file.sha256:
        return ["its pieces are not those of the file"]
    return said


def _piece_problem(piece: Piece, blobs: Blobs, whole: hashlib._Hash) -> str:
    """What is wrong with a piece, whose bytes go through the digest of the whole file; empty where nothing is."""
    digest, size = hashlib.sha256(), 0
    try:
        with blobs.open(piece.sha256) as part:
            while data := part.read(CHUNK):
                digest.update(data)
                whole.update(data)
                size += len(data)
    except FileNotFoundError:
        return f"blob {piece.sha256} is missing"
    except OSError as error:
        return f"blob {piece.sha256} cannot be read: {error.strerror}"
    if size != piece.size:
        return f"blob {piece.sha256} has {size} bytes of {piece.size}"
    return (
        "" if digest.hexdigest() == piece.sha256 else f"blob {piece.sha256} holds other bytes than it was written with"
    )


def _version_problems(
    version: Version, files: dict[str, StoredFile], broken: dict[str, list[str]], blobs: Blobs
) -> Iterator[str]:
    damaged = {name: broken[file.sha256] for name, file in files.items() if file.sha256 in broken}
    for name, problems in damaged.items():
        yield from (f"{version}: {name}: {problem}" for problem in problems)
    if MANIFEST in damaged:
        return
    if MANIFEST not in files or files[MANIFEST].sha256 != version.manifest:
        yield f"{version}: {MANIFEST} is not the one that the version was added with"
        return
    if said := _manifest_problem(version, files, blobs):
        yield f"{version}: {MANIFEST}: {said}"


def _manifest_problem(version: Version, files: dict[str, StoredFile], blobs: Blobs) -> str:
    from adapterkit.artifact.files import read_bytes
    from adapterkit.artifact.record import FileRecord, from_values
    from adapterkit.artifact.strict_json import parse_object

    try:
        data = read_bytes(StoredFiles(str(version), files, blobs), MANIFEST, MOST_JSON_BYTES)
        record = from_values(parse_object(data, MANIFEST))
    except ArtifactError as error:
        return str(error)
    if record.digest != version.digest:
        return "the adapter's digest is another one than the version was added with"
    there = {name: FileRecord(file.sha256, file.size) for name, file in files.items()}
    wrong = [name for name, file in record.files.items() if there.get(name) != file]
    return f"it lists another {', '.join(sorted(wrong))}" if wrong else ""


def _is_present(index: Index, version: Version) -> bool:
    with index.reading() as db:
        now = read_version(db, version.name, version.number)
    return now is not None and now.state == PRESENT
