"""Cuts files into pieces, and reads pieces as files.

Weights are cut where tensors end, so that a tensor that two adapters have in common is stored once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.layout import KEPT, MOST_JSON_BYTES, MOST_WEIGHT_BYTES, WEIGHTS
from adapterkit.errors import ArtifactError, StoreError

from .blobs import open_blob
from .values import Piece, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from adapterkit.artifact.files import Files
    from adapterkit.artifact.header import Entry

    from .blobs import Blobs

__all__ = ["ALONE", "StoredFiles", "cut"]

ALONE = 64 << 10
"""Bytes from which a tensor is a blob of its own; smaller ones would be more files than they are worth."""
CHUNK = 1 << 20


@attrs.frozen(repr=False)
class StoredFiles:
    """The files of a version, each read from its pieces as if it were one.

    Attributes:
        what: Whose they are, for errors.
        files: By name.
        blobs: Where the pieces are.
        staged: A folder in which they are looked for first.
    """

    what: str
    files: Mapping[str, StoredFile]
    blobs: Blobs = attrs.field(repr=False)
    staged: Path | None = None

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self.files

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[io.RawIOBase, int]]:
        """The file as a stream, and its size.

        Raises:
            ArtifactError: There is no such file, or a piece of it is missing.
        """
        if name not in self.files:
            raise ArtifactError(f"{name} is missing")
        file = self.files[name]
        with contextlib.closing(_Joined(name, [(self._path(piece), piece.size) for piece in file.pieces])) as stream:
            yield stream, file.size

    def __str__(self) -> str:
        return self.what

    def _path(self, piece: Piece) -> Path:
        staged = self.staged and self.staged / piece.sha256
        return staged if staged and staged.exists() else self.blobs.path(piece.sha256)


class _Joined(io.RawIOBase):
    """Pieces, one after the other; each is opened when it is reached."""

    def __init__(self, name: str, parts: Sequence[tuple[Path, int]]) -> None:
        super().__init__()
        self._name = name
        self._parts = iter(parts)
        self._file: io.FileIO | None = None
        self._rest = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, unless the file ends."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and (file := self._reach()) is not None:
            got = file.readinto(view[done : done + self._rest])
            if not got:
                raise ArtifactError(f"{self._name}: a piece of it is shorter than it was")
            done += got
            self._rest -= got
        return done

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _reach(self) -> io.FileIO | None:
        """The piece with the next byte; None at the end."""
        while not self._rest:
            if self._file is not None:
                self._file.close()
                self._file = None
            part = next(self._parts, None)
            if part is None:
                return None
            path, self._rest = part
            try:
                self._file = open_blob(path)
            except OSError as error:
                raise ArtifactError(f"{self._name}: its piece {path.name} cannot be read: {error.strerror}") from None
            if os.fstat(self._file.fileno()).st_size != self._rest:
                raise ArtifactError(f"{self._name}: its piece {path.name} has another size than it was stored with")
        return self._file


def cut(files: Files, folder: Path) -> dict[str, StoredFile]:
    """Write the files of an adapter, but for its card, as pieces into a folder, each piece called by its sha256.

    Raises:
        ArtifactError: A file cannot be read, is larger than any adapter's, or its weights are not safetensors.
    """
    return {name: _cut(files, name, folder) for name in KEPT if files.has(name)}


def _cut(files: Files, name: str, folder: Path) -> StoredFile:
    most = MOST_WEIGHT_BYTES if name == WEIGHTS else MOST_JSON_BYTES
    with files.open(name) as (file, size):
        if size > most:
            raise ArtifactError(f"{name} has {size:,} bytes; at most {most:,} are read")
        head, sizes = b"", [size]
        if name == WEIGHTS:
            from adapterkit.artifact.header import read_header

            try:
                head, entries = read_header(file, size)
            except ArtifactError as error:
                raise ArtifactError(f"{name}: {error}") from None
            sizes = _piece_sizes(len(head), entries.values())
        whole = hashlib.sha256()
        source = _Source(name, head, file, whole)
        pieces = tuple(Piece(_write(source, count, folder), count) for count in sizes)
        source.end()
    return StoredFile(name, whole.hexdigest(), size, pieces)


def _piece_sizes(head: int, entries: Iterable[Entry]) -> list[int]:
    """A tensor of :data:`ALONE` bytes or more is a piece; what lies between such tensors, header first, is one together."""
    sizes, run = [], head
    for entry in entries:
        size = entry.end - entry.begin
        if size < ALONE:
            run += size
            continue
        sizes += [run, size] if run else [size]
        run = 0
    return [*sizes, run] if run else sizes


@attrs.define
class _Source:
    """The bytes of a file of which the first have been read; all go through the digest of the whole."""

    name: str
    head: bytes
    file: io.RawIOBase
    whole: hashlib._Hash

    def read(self, most: int) -> bytes:
        data, self.head = self.head[:most], self.head[most:]
        try:
            data = data or self.file.read(most) or b""
        except OSError as error:
            raise ArtifactError(f"{self.name} cannot be read: {error.strerror}") from error
        if not data:
            raise ArtifactError(f"{self.name} shrank while it was read")
        self.whole.update(data)
        return data

    def end(self) -> None:
        if self.file.read(1):
            raise ArtifactError(f"{self.name} grew while it was read")


def _write(source: _Source, size: int, folder: Path) -> str:
    """Write the next ``size`` bytes, and return their sha256, which the file is then called by.

    Raises:
        ArtifactError: There are not so many.
        StoreError: The disk is full, or the store cannot be written.
    """
    digest, rest = hashlib.sha256(), size
    writing = folder / f".{secrets.token_hex(8)}"
    try:
        with writing.open("xb") as out:
            while rest:
                data = source.read(min(rest, CHUNK))
                digest.update(data)
                out.write(data)
                rest -= len(data)
        sha256 = digest.hexdigest()
        writing.replace(folder / sha256)
    except OSError as error:
        raise StoreError(f"{source.name} cannot be written to {str(folder)!r}: {error.strerror}") from error
    return sha256
