"""Opens the files of an adapter, in a folder or elsewhere: regular ones, inside it, once."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from adapterkit.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["Files", "Folder", "find_folder", "locate", "read_bytes", "true_path"]

# never wait for a writer of a FIFO, never follow a link that appeared after the path was resolved
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Files(Protocol):
    """The files of one adapter, wherever they lie; ``str`` says whose they are."""

    def has(self, name: str) -> bool:
        """Whether there is an entry of that name, of whatever kind."""

    def open(self, name: str) -> AbstractContextManager[tuple[io.RawIOBase, int]]:
        """The opened file and its size; everything is read through this one stream.

        Raises:
            ArtifactError: It is missing, or nothing that may be read.
        """


@attrs.frozen
class Folder:
    """The files of a folder, given by its true path: see :func:`find_folder`."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether there is an entry of that name, of whatever kind."""
        return os.path.lexists(self.path / name)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[io.RawIOBase, int]]:
        """The opened file and its size, through one descriptor.

        Raises:
            ArtifactError: It is missing, not a regular file, or a link that leads out of the folder.
        """
        try:
            descriptor = os.open(locate(self.path, name), FLAGS)
        except FileNotFoundError:
            raise ArtifactError(f"{name} is missing") from None
        except OSError as error:
            raise ArtifactError(f"{name} cannot be opened: {error.strerror}") from None
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ArtifactError(f"{name} is not a regular file")
            yield io.FileIO(descriptor, closefd=False), state.st_size
        finally:
            os.close(descriptor)

    def __str__(self) -> str:
        return f"adapter folder {str(self.path)!r}"


def find_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder's true path.

    Raises:
        ArtifactError: There is no such folder.
    """
    path = true_path(folder)
    if not path.exists():
        raise ArtifactError("there is no such folder")
    if not path.is_dir():
        raise ArtifactError("this is not a folder; give the folder that holds the adapter's files")
    return path


def true_path(path: str | os.PathLike[str]) -> Path:
    """Where a path leads, whether something is there or not.

    Raises:
        ArtifactError: Nothing can be there: it holds a NUL.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise ArtifactError(f"{str(path)!r} is no path: {error}") from None


def read_bytes(files: Files | Path, name: str, most: int) -> bytes:
    """All of a small file, of a folder or of what else holds files.

    Raises:
        ArtifactError: As :meth:`Files.open` does, or it is larger than ``most`` bytes.
    """
    opened = Folder(files) if isinstance(files, Path) else files
    with opened.open(name) as (file, size):
        if size > most:
            raise ArtifactError(f"{name} has {size:,} bytes; at most {most:,} are read")
        data = file.read(most + 1) or b""
    if len(data) > most:
        raise ArtifactError(f"{name} grew while it was read")
    return data


def locate(folder: Path, name: str) -> Path:
    """Where a file truly is: in the folder, or where the Hugging Face cache has it.

    Args:
        folder: The folder's true path, see :func:`find_folder`.
        name: The file's path in it.

    Raises:
        ArtifactError: It is a link that leads anywhere else.
    """
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(folder) and path.parent != _blobs(folder):
        raise ArtifactError(f"{name} is a link that leads out of the folder")
    return path


def _blobs(folder: Path) -> Path | None:
    """Where the files of a snapshot in the Hugging Face cache truly are: ``models--…/snapshots/…`` links there."""
    for snapshot in (folder, *folder.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            return repository / "blobs"
    return None
