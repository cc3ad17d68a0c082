"""Takes in what a store has exported: a stranger's folder or tar, of which everything is let in, or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.files import find_folder, read_bytes
from adapterkit.errors import ArtifactError, TrustError

from . import adding, aliases, archive
from .listing import LISTING, MOST_LISTING_BYTES, ListedFile, Listing
from .values import Imported

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from adapterkit.registry import Registry

    from .adding import Incoming
    from .blobs import Blobs
    from .index import Index
    from .listing import ListedVersion
    from .values import Version

__all__ = ["MOST_BYTES", "import_"]

MOST_BYTES = 64 << 30
"""Of all files of an import together, unless the caller says otherwise."""


def import_(
    index: Index,
    blobs: Blobs,
    path: str | os.PathLike[str],
    registry: Registry,
    *,
    move_aliases: bool,
    max_bytes: int,
    why: str,
    who: str,
) -> Imported:
    """Take in an export; see :meth:`Store.import_`.

    Raises:
        BlobGoneError: A blob was collected before the commit.
    """
    what = f"import of {os.fspath(path)!r}"
    with blobs.staging() as folder:
        try:
            origin, root, listing = _opened(path, folder / "unpacked", max_bytes)
            staged = {
                one.key: _staged(root, one, folder / "pieces", blobs, registry, origin) for one in listing.versions
            }
        except TrustError as error:
            raise TrustError(f"{what} is refused: {error}") from None
        except (ArtifactError, OSError) as error:
            raise ArtifactError(f"{what} is refused: {error}") from error
        blobs.settle(folder / "pieces", [piece for one in staged.values() for piece in one.pieces])
        with index.writing(make=True) as db:
            return _commit(db, blobs, listing, staged, move_aliases=move_aliases, why=why, who=who)


def _opened(path: str | os.PathLike[str], folder: Path, max_bytes: int) -> tuple[str, Path, Listing]:
    """The true path of what is imported, the folder in which its files lie now, and its list, which says what they are."""
    if not os.path.isfile(path):  # noqa: PTH113 - a text with a NUL is no file, and raises nothing
        root = find_folder(path)
        listing = Listing.parse(read_bytes(root, LISTING, MOST_LISTING_BYTES))
        _check_sizes(_sizes_in(root, listing), listing, max_bytes)
        return str(root), root, listing
    origin = Path(os.path.realpath(path))
    data, sizes = archive.scan(origin, max_bytes)
    listing = Listing.parse(data)
    _check_sizes(sizes, listing, max_bytes)
    folder.mkdir()
    archive.unpack(origin, folder, max_bytes)
    return str(origin), folder, listing


def _sizes_in(root: Path, listing: Listing) -> dict[str, int]:
    """The sizes of the files of a folder, by their paths in it.

    Raises:
        ArtifactError: It holds a link, a device or a folder that is not in the list.
    """
    folders = {one.name for one in listing.versions} | {one.folder for one in listing.versions}
    sizes: dict[str, int] = {}
    for entry, name in _walk(root, ""):
        if name == LISTING or (name in folders and entry.is_dir(follow_symlinks=False)):
            continue
        if not entry.is_file(follow_symlinks=False):
            raise ArtifactError(f"{name!r:.200} is neither a plain file nor a folder of an export")
        sizes[name] = entry.stat(follow_symlinks=False).st_size
        if len(sizes) > archive.MOST_MEMBERS:
            raise ArtifactError(f"it holds more than {archive.MOST_MEMBERS:,} files")
    return sizes


def _check_sizes(sizes: dict[str, int], listing: Listing, max_bytes: int) -> None:
    """Refuse what is not exactly what the list says, before any of it is read."""
    listed = {f"{one.folder}/{name}": file.bytes for one in listing.versions for name, file in one.records.items()}
    if sum(listed.values()) > max_bytes:
        raise ArtifactError(f"it holds {sum(listed.values()):,} bytes; at most {max_bytes:,} are read (max_bytes)")
    if odd := sizes.keys() - listed.keys():
        raise ArtifactError(f"{min(odd)!r:.200} is not in {LISTING}")
    if missing := listed.keys() - sizes.keys():
        raise ArtifactError(f"{min(missing)!r} is missing")
    wrong = next((name for name in sorted(listed) if sizes[name] != listed[name]), None)
    if wrong:
        raise ArtifactError(f"{wrong!r} has {sizes[wrong]:,} bytes; {LISTING} says {listed[wrong]:,}")


def _walk(root: Path, inside: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """What a folder holds, three levels deep as an export is: what is deeper is not in its list."""
    with os.scandir(root / inside) as entries:
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            yield entry, name
            if entry.is_dir(follow_symlinks=False) and name.count("/") < 2:
                yield from _walk(root, name)


def _staged(root: Path, listed: ListedVersion, folder: Path, blobs: Blobs, registry: Registry, origin: str) -> Incoming:
    incoming = adding.stage(root / listed.folder, folder, blobs, registry, origin)
    real = {name: ListedFile(file.sha256, file.size) for name, file in incoming.files.items()}
    if incoming.digest != listed.digest or real != listed.records:
        raise ArtifactError(f"{listed.key} is not the adapter that {LISTING} lists: it was changed after the export")
    return incoming


def _commit(
    db: sqlite3.Connection,
    blobs: Blobs,
    listing: Listing,
    staged: dict[str, Incoming],
    *,
    move_aliases: bool,
    why: str,
    who: str,
) -> Imported:
    added: dict[str, Version] = {}
    known: dict[str, Version] = {}
    for listed in sorted(listing.versions, key=lambda one: (one.name, one.number)):
        incoming = staged[listed.key]
        same = [one for one in adding.alike(db, incoming, listed.name) if one not in added.values()]
        if same:
            known[listed.key] = next((one for one in same if one.number == listed.number), same[0])
            continue
        added[listed.key] = adding.register(
            db,
            incoming,
            blobs,
            name=listed.name,
            number=listed.number,
            who=who,
            why=why or listed.why,
            action="import",
        )
    done: list[str] = []
    kept: list[str] = []
    for alias in listing.aliases:
        said = f"{alias.name}@{alias.alias}"
        version = {**known, **added}[f"{alias.name}@{alias.number}"]
        moved = aliases.adopt(db, version, alias.alias, move=move_aliases, protected=alias.protected, why=why, who=who)
        if moved is not None:
            (done if moved else kept).append(said)
    return Imported(added=added, known=known, aliases=tuple(done), kept=tuple(kept))
