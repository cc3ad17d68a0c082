"""Writes versions as plain adapter folders, or as a tar of them, with a list of what is there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.replacing import check_apart
from adapterkit.errors import ArtifactError, ConfigError

from . import archive, journal
from .checkout import copy
from .listing import LISTING, ListedAlias, ListedFile, Listing
from .pieces import StoredFiles
from .versions import find, read_files, read_versions

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from .blobs import Blobs
    from .index import Index
    from .values import Version

__all__ = ["export"]


def export(
    index: Index, blobs: Blobs, store: Path, path: str | os.PathLike[str], references: Iterable[str | Version] | None
) -> list[Version]:
    """Write versions out, all or nothing; see :meth:`Store.export`."""
    from adapterkit.trust import check_trusted  # it needs torch, which looking into a store does not

    target = Path(path).absolute()
    check_apart(target, [store])
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"path={str(path)!r} does not fit", ["something is there already; give a new name"])
    with index.reading() as db:
        chosen = _chosen(db, references)
        held = {version: StoredFiles(str(version), read_files(db, version), blobs) for version in chosen}
        listing = _listing(db, held)
    with _gone_is_said(index, chosen):
        for version, files in held.items():
            check_trusted(files, origin=version.origin)
    text = (json.dumps(listing.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".adapterkit-export-{secrets.token_hex(8)}")
    try:
        with _gone_is_said(index, chosen):
            (_write_tar if target.suffix == ".tar" else _write_folder)(staging, text, held)
        staging.replace(target)
    except (ArtifactError, OSError) as error:
        raise ArtifactError(f"the export is not written to {str(path)!r}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        staging.unlink(missing_ok=True)
    return chosen


@contextlib.contextmanager
def _gone_is_said(index: Index, versions: Iterable[Version]) -> Iterator[None]:
    """Have what cannot be read, as its version was collected meanwhile, say so."""
    try:
        yield
    except ArtifactError:
        with index.reading() as db:
            for version in versions:
                find(db, version)
        raise


def _chosen(db: sqlite3.Connection, references: Iterable[str | Version] | None) -> list[Version]:
    if references is None:
        return read_versions(db, "state = 'present'")
    found = {str(version): version for version in (find(db, reference) for reference in references)}
    return sorted(found.values(), key=lambda version: (version.name, version.number))


def _listing(db: sqlite3.Connection, held: dict[Version, StoredFiles]) -> Listing:
    files = {
        version: {name: ListedFile(file.sha256, file.size) for name, file in stored.files.items()}
        for version, stored in held.items()
    }
    rows = db.execute("SELECT name, alias, number, protected FROM aliases ORDER BY name, alias")
    chosen = {(version.name, version.number) for version in held}
    aliases: list[ListedAlias] = [
        ListedAlias(name=name, alias=alias, number=number, protected=bool(protected))
        for name, alias, number, protected in rows
        if (name, number) in chosen
    ]
    names = {version.name for version in held}
    return Listing.of(files, aliases, [entry for entry in journal.entries(db) if entry.name in names])


def _write_folder(folder: Path, listing: bytes, held: dict[Version, StoredFiles]) -> None:
    folder.mkdir()
    (folder / LISTING).write_bytes(listing)
    for version, name, files in _each(held):
        path = folder / version.name / str(version.number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            _copy(files, name, out)
            out.flush()
            os.fsync(out.fileno())


def _write_tar(path: Path, listing: bytes, held: dict[Version, StoredFiles]) -> None:
    with path.open("xb") as out:
        out.write(archive.header(LISTING, len(listing)) + listing + archive.padding(len(listing)))
        for version, name, files in _each(held):
            size = files.files[name].size
            out.write(archive.header(f"{version.name}/{version.number}/{name}", size))
            _copy(files, name, out)
            out.write(archive.padding(size))
        out.write(archive.end())
        out.flush()
        os.fsync(out.fileno())


def _each(held: dict[Version, StoredFiles]) -> Iterator[tuple[Version, str, StoredFiles]]:
    for version, files in held.items():
        for name in sorted(files.files):
            yield version, name, files


def _copy(files: StoredFiles, name: str, out: BinaryIO) -> None:
    with files.open(name) as (stream, _):
        copy(stream, out, files.files[name])
