"""A folder as a place: files are written beside and moved into theirs, and no link in it leads anywhere."""

# ruff: noqa: D102 - Place says what its methods do

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit import RemoteError

from .place import A_DAY, CHUNK, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INCOMING", "Folder"]

INCOMING = ".adapterkit-incoming"
"""Where files are that are not complete yet; whoever was killed has left some."""
_OURS = re.compile(r"[0-9a-f]{16}")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FROM_FOLDERS = {os.open, os.mkdir, os.unlink, os.rmdir, os.stat, os.link, os.rename} <= os.supports_dir_fd
"""Whether the system opens a file in an opened folder, where nobody can put a link in the way any more."""
_NO_LINKS_HERE = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

Inside = tuple[int | None, str]
"""A file: the opened folder and its name there; or its whole path."""


class Folder(Place):
    """A folder of this machine, mounted ones too. The way to it may have links; what is in it may not."""

    def entries(self, folder: str) -> dict[str, int]:
        with self.reaching("list"):
            return {name: found.st_size for name, found in self._scan(folder).items() if stat.S_ISREG(found.st_mode)}

    def folders(self, folder: str) -> list[str]:
        with self.reaching("list"):
            return sorted(name for name, found in self._scan(folder).items() if stat.S_ISDIR(found.st_mode))

    def names(self, folder: str) -> list[str]:
        inner = [f"{name}/{file}" for name in self.folders(folder) for file in self.names(f"{folder}/{name}")]
        return sorted([*self.entries(folder), *inner])

    def size(self, name: str) -> int | None:
        with self.reaching("look at a file"):
            try:
                with self._inside(name) as (folder, last):
                    found = os.stat(last, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None
            if stat.S_ISLNK(found.st_mode):
                raise self._link(name)
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: str, size: int) -> bytes:
        with self.stream(name) as stream:
            data: bytes = stream.read(size)
            return data

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[Any]:
        with self.reaching("read"):
            with self._inside(name) as (folder, last):
                descriptor = self._opened_file(folder, last, name)
            with os.fdopen(descriptor, "rb") as stream:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise RemoteError(f"{self.url}: {name} is no file")
                yield stream

    def put(self, source: Path, name: str) -> None:
        with source.open("rb") as file:
            self._write(file, name)

    def copy(self, name: str, other: str) -> None:
        with self.stream(name) as file:
            self._write(file, other)

    def create(self, name: str, data: bytes) -> bool:
        with self.reaching("write"), self._incoming() as (incoming, path):
            with os.fdopen(self._new_file(incoming, path), "wb") as file:
                file.write(data)
                _sync(file)
            try:
                with self._inside(name, make=True) as (folder, last):
                    os.link(path, last, src_dir_fd=incoming, dst_dir_fd=folder)
            except FileExistsError:
                return self.read(name, len(data) + 1) == data
            except OSError as error:
                if error.errno not in _NO_LINKS_HERE:
                    raise
                raise RemoteError(
                    f"{self.url}: its file system has no hard links, by which a version is published whole and once: "
                    "give a folder on another one"
                ) from None
            return True

    def remove(self, name: str) -> None:
        with self.reaching("remove"), self._inside(name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    def remove_folder(self, name: str) -> None:
        with self.reaching("remove"), contextlib.suppress(OSError):
            if name:
                with self._inside(name) as (folder, last):
                    os.rmdir(last, dir_fd=folder)
            else:
                self._root().rmdir()

    def clear_up(self, older_than: float = A_DAY) -> None:
        with self.reaching("clear up"):
            for name, found in self._scan(INCOMING).items():
                is_ours = _OURS.fullmatch(name) and stat.S_ISREG(found.st_mode)
                if is_ours and time.time() - found.st_mtime > older_than:
                    with self._inside(f"{INCOMING}/{name}") as (folder, last), contextlib.suppress(FileNotFoundError):
                        os.unlink(last, dir_fd=folder)

    def _write(self, file: Any, name: str) -> None:
        with self.reaching("write"), self._incoming() as (incoming, path):
            with os.fdopen(self._new_file(incoming, path), "wb") as copy:
                shutil.copyfileobj(file, copy, CHUNK)
                _sync(copy)
            with self._inside(name, make=True) as (folder, last):
                os.replace(path, last, src_dir_fd=incoming, dst_dir_fd=folder)

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[Inside]:
        """A new name for a file that is not complete yet; what is left under it goes with the block."""
        with self._inside(f"{INCOMING}/{secrets.token_hex(8)}", make=True) as (folder, last):
            try:
                yield folder, last
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(last, dir_fd=folder)

    def _scan(self, folder: str) -> dict[str, os.stat_result]:
        """What is in a folder, links themselves among it; nothing where there is no such folder."""
        entries: dict[str, os.stat_result] = {}
        with (
            contextlib.suppress(FileNotFoundError),
            self._inside(f"{folder}/.") as (opened, path),
            os.scandir(path if opened is None else opened) as found,
        ):
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    entries[entry.name] = entry.stat(follow_symlinks=False)
        return entries

    def _root(self) -> Path:
        return Path(self.path("."))

    @contextlib.contextmanager
    def _inside(self, name: str, *, make: bool = False) -> Iterator[Inside]:
        """A file of the place, to which no link inside it has led.

        Raises:
            RemoteError: A folder on the way is a link.
            FileNotFoundError: It is not there.
        """
        *folders, last = name.split("/")
        root = self._root()
        if make:
            root.mkdir(parents=True, exist_ok=True)
        if not _FROM_FOLDERS:
            yield None, str(self._checked(root, folders, make=make) / last)
            return
        opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=opened)
                inner = self._opened_file(opened, folder, name, os.O_DIRECTORY)
                os.close(opened)
                opened = inner
            yield opened, last
        finally:
            os.close(opened)

    def _checked(self, path: Path, folders: list[str], *, make: bool) -> Path:
        for folder in folders:
            path /= folder
            if make:
                path.mkdir(exist_ok=True)
            if path.is_symlink():
                raise self._link("/".join(folders))
        return path

    def _opened_file(self, folder: int | None, last: str, name: str, flags: int = 0) -> int:
        if stat.S_ISLNK(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
            raise self._link(name)  # says what it is; if it becomes one only now, opening it fails
        return os.open(last, os.O_RDONLY | _NO_LINK | flags, dir_fd=folder)

    def _new_file(self, folder: int | None, last: str) -> int:
        return os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666, dir_fd=folder)

    def _link(self, name: str) -> RemoteError:
        return RemoteError(
            f"{self.url}: {name.removesuffix('/.')} is a link, or lies behind one, which is not followed"
        )


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
