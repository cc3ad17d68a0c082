"""The blobs: read-only files that are called by their sha256, and the folder in which they are written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.files import FLAGS
from adapterkit.artifact.replacing import lock, sync
from adapterkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .values import Piece

__all__ = ["Blob", "Blobs", "hold", "open_blob"]

NAME = re.compile(r"[0-9a-f]{64}")
READ_ONLY = 0o444
A_MOMENT = 60
"""Seconds in which a writer has surely taken hold of the folder that it made."""


@attrs.frozen
class Blob:
    """A blob on the disk: its name, size, and when it was last written or asked for."""

    sha256: str
    size: int
    used: float


@attrs.frozen
class Blobs:
    """The blobs of a store. None is ever changed: it is there as a whole, or not."""

    folder: Path
    staged: Path
    downloads: Path

    def path(self, sha256: str) -> Path:
        """Where a blob lies, if it is there."""
        return self.folder / sha256[:2] / sha256

    def open(self, sha256: str) -> io.FileIO:
        """The blob to be read.

        Raises:
            OSError: There is none, or what lies in its place is a link or no file.
        """
        return open_blob(self.path(sha256))

    def has(self, sha256: str) -> bool:
        """Whether it is there, as far as its name says."""
        return self.path(sha256).exists()

    def is_sound(self, piece: Piece) -> bool:
        """Whether it is there, and every byte is what its name says."""
        try:
            with self.open(piece.sha256) as file:
                size = os.fstat(file.fileno()).st_size
                return size == piece.size and hashlib.file_digest(file, "sha256").hexdigest() == piece.sha256
        except OSError:
            return False

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to write in, which is gone when the block ends, or with the next collection after its writer died.

        Raises:
            StoreError: It cannot be made.
        """
        folder = self.staged / secrets.token_hex(8)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"the store {str(self.staged.parent)!r} cannot be written: {error.strerror}") from None
        held = lock(folder, wait=True)  # until this writer ends, in any way
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if held is not None:
                os.close(held)

    def settle(self, staged: Path, pieces: Iterable[Piece]) -> None:
        """Move pieces to their places, on the disk before this returns; one that is there and sound is left as it is.

        Args:
            staged: The folder with the pieces, each called by its sha256.
            pieces: Which ones.

        Raises:
            StoreError: The disk is full, or the store cannot be written.
        """
        wanted = sorted(set(pieces), key=lambda one: one.sha256)
        if not wanted:
            return
        try:
            for piece in wanted:
                target = self.path(piece.sha256)
                if self.is_sound(piece):
                    with contextlib.suppress(OSError):
                        os.utime(target)  # it is needed again: its grace begins anew
                else:
                    _settle(staged / piece.sha256, target)
            # also where nothing was moved: whoever has moved it may not have come so far
            folders = {self.path(piece.sha256).parent for piece in wanted}
            for folder in (*sorted(folders), self.folder, self.folder.parent, self.staged.parent):
                sync(folder)
        except OSError as error:
            raise StoreError(f"the store {str(self.staged.parent)!r} cannot be written: {error}") from error

    def all(self) -> Iterator[Blob]:
        """Every blob, in order."""
        for folder in sorted(self._folders()):
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                        state = entry.stat(follow_symlinks=False)
                        yield Blob(entry.name, state.st_size, state.st_mtime)

    def strange(self) -> Iterator[Path]:
        """What lies among the blobs and is none."""
        for folder in sorted(self._folders()):
            yield from (path for path in sorted(folder.iterdir()) if not NAME.fullmatch(path.name) or path.is_symlink())

    def used(self, sha256: str) -> float:
        """When a blob was last written or asked for; 0 where it is not there."""
        return _used(self.path(sha256))

    def remove(self, sha256: str) -> bool:
        """Delete a blob; whether it was there."""
        try:
            self.path(sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def clear(self, until: float, *, dry_run: bool) -> int:
        """Delete what dead writers have left, and the downloads that nobody went on with since a moment; how many folders."""
        old = [path for path in _inside(self.downloads) if _used(path) < until]
        return sum(_clear(path, dry_run=dry_run) for path in (*_inside(self.staged), *old))

    def _folders(self) -> list[Path]:
        try:
            return [Path(entry.path) for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []


def open_blob(path: Path) -> io.FileIO:
    """A blob, wherever it lies; see :meth:`Blobs.open`."""
    file = io.FileIO(os.open(path, FLAGS))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file")
    return file


def _settle(piece: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    piece.chmod(piece.stat().st_mode & READ_ONLY)
    sync(piece)
    piece.replace(target)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _used(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _clear(folder: Path, *, dry_run: bool) -> bool:
    """Delete a folder in which nobody writes any more, while nobody can begin to; whether it is one."""
    held = hold(folder)
    if held is None:
        return False
    try:
        if time.time() - _used(folder) < A_MOMENT and not any(folder.iterdir()):
            return False  # it was made just now, and may not be held yet
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)
    return True


def hold(folder: Path) -> int | None:
    """Hold a folder, and not what a link leads to: a descriptor to be closed; None where another does, or deleted it meanwhile."""
    held = lock(folder)
    if held is None:
        return None
    with contextlib.suppress(FileNotFoundError):
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and os.path.samestat(state, os.fstat(held)):
            return held
    os.close(held)
    return None
