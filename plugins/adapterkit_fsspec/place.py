"""What a repository needs of a file system: to list, to read within limits, to write whole files, and to be first."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from typing import TYPE_CHECKING, Any

from adapterkit import ConfigError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["A_DAY", "CHUNK", "Place", "place_of"]

EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "azure", "abfs": "azure", "sftp": "sftp"}
"""The extra of adapterkit's that brings what a scheme needs."""
OBJECTS = ("s3", "gs", "gcs", "az", "abfs", "oss")
"""Where there are no folders to make, and making one would make a bucket."""
CHUNK = 1 << 20
AT_ONCE = 8
A_DAY = 86_400.0
"""Seconds in which somebody who is alive writes something."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^?#]+")
_PASSWORD = re.compile(r"[a-z0-9+.-]+://[^/@]*:(?![0-9]{1,5}(/[^@]*)?$).*@", re.DOTALL)
_QUERY = re.compile(r"\?\S*")
_IN_PROCESS = threading.Lock()


def place_of(url: str) -> Place:
    """The place of a URL.

    Raises:
        ConfigError: It is none that a repository can have.
    """
    scheme, _, path = url.partition("://")
    problems = []
    if not _URL.fullmatch(url) or "::" in url:
        problems.append("the URL must be scheme://path, with nothing but a path behind")
    if _PASSWORD.match(url):
        problems = [
            "the URL holds a password, which would be written down wherever the URL is: give it as fsspec's settings"
        ]
    elif any(part in ("", ".", "..") for part in path.removeprefix("/").removesuffix("/").split("/")):
        problems.append("a part of the URL's path is empty, '.' or '..'")
    if problems:
        raise ConfigError("the place cannot be used", problems)
    from .folder import Folder

    return {"file": Folder, "memory": Memory}.get(scheme, Place)(scheme, url)


class Place:
    """A folder of a file system of fsspec's. Paths are relative to it.

    Every method raises :class:`~adapterkit.RemoteError` where the place cannot be reached or refuses.
    """

    def __init__(self, scheme: str, url: str) -> None:
        self.scheme = scheme
        self.url = url.removesuffix("/")
        self._opened: tuple[Any, str] | None = None

    @property
    def fs(self) -> Any:
        """The file system, connected when it is first asked for."""
        return self._open()[0]

    def path(self, name: str) -> str:
        """Where a file is, as the file system calls it."""
        return f"{self._open()[1].rstrip('/')}/{name}"

    @property
    def at_once(self) -> int:
        """From how many threads it may be read: connections that are not made for it, such as SFTP's, wait for ever."""
        return AT_ONCE if getattr(self.fs, "async_impl", False) else 1

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from fsspec.core import url_to_fs

            with self.reaching("reach"):
                self._opened = url_to_fs(self.url)
        return self._opened

    @contextlib.contextmanager
    def reaching(self, verb: str) -> Iterator[None]:
        """What the file system raises in this block, as one error that holds no key."""
        try:
            yield
        except (RemoteError, ConfigError):
            raise
        except ImportError as error:
            extra = EXTRAS.get(self.scheme)
            cure = f'; pip install "adapterkit[{extra}]"' if extra else ""
            raise RemoteError(f"{self.url}: a package is missing: {error}{cure}") from None
        except Exception as error:  # noqa: BLE001 - each file system raises what its own library does
            raise RemoteError(f"{self.url}: cannot {verb}: {type(error).__name__}: {self._said(error)}") from None

    def _said(self, error: Exception) -> str:
        text = " ".join(str(error).split())[:1000]
        for secret in self._secrets():
            text = text.replace(secret, "…")
        return _QUERY.sub("?…", text)[:300]  # behind the question mark are signatures

    def _secrets(self) -> list[str]:
        options = getattr(self._opened[0], "storage_options", {}) if self._opened else {}
        found = [value for name, value in _texts(options) if name != "endpoint_url" and len(value) > 3]
        return sorted(found, key=len, reverse=True)

    def entries(self, folder: str) -> dict[str, int]:
        """The sizes of the files in a folder, by name; nothing where there is no such folder."""
        with self.reaching("list"):
            self.fs.invalidate_cache()
            try:
                listed = self.fs.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return {}
            files = [one for one in listed if one["type"] == "file"]
            return {one["name"].rpartition("/")[2]: int(one["size"]) for one in files}

    def size(self, name: str) -> int | None:
        """The size of a file; None where there is none."""
        with self.reaching("look at a file"):
            self.fs.invalidate_cache()
            try:
                found = self.fs.info(self.path(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def read(self, name: str, size: int) -> bytes:
        """A small file of a known size."""
        with self.reaching("read"):
            data: bytes = self.fs.cat_file(self.path(name), start=0, end=size)
            return data

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[Any]:
        """A file, opened."""
        with self.reaching("read"), self.fs.open(self.path(name), "rb") as stream:
            yield stream

    def put(self, source: Path, name: str) -> None:
        """Write a file of this machine; one that is there is replaced."""
        with self.reaching("write"):
            self._make_folder(name)
            self.fs.put_file(str(source), self.path(name))

    def copy(self, name: str, other: str) -> None:
        """Write a file once more."""
        with self.reaching("write"):
            self._make_folder(other)
            try:
                self.fs.cp_file(self.path(name), self.path(other))
            except NotImplementedError:  # as over SFTP: by way of this machine
                with self.fs.open(self.path(name), "rb") as file, self.fs.open(self.path(other), "wb") as copy:
                    shutil.copyfileobj(file, copy, CHUNK)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file, complete from its first moment, unless there is one of that name; says whether it was written.

        Object stores decide it in one conditional request. Where a service does not, it is looked at before and after.
        """
        failed = None
        try:
            with self.reaching("write"):
                self._make_folder(name)
                self.fs.pipe_file(self.path(name), data, mode="create")
        except RemoteError as error:
            failed = error  # that there is one already is said in as many ways as there are services
        size = self.size(name)
        if size is None and failed:
            raise failed
        return size == len(data) and self.read(name, size) == data  # it may be ours, by a call that was not answered

    def remove(self, name: str) -> None:
        """Take a file away."""
        with self.reaching("remove"):
            self.fs.rm_file(self.path(name))

    def names(self, folder: str) -> list[str]:
        """Every file in a folder and in the folders within, by its path from there, in order."""
        root = self.path(folder).strip("/") + "/"
        with self.reaching("list"):
            self.fs.invalidate_cache()
            try:
                found = [str(path).lstrip("/") for path in self.fs.find(self.path(folder))]
            except FileNotFoundError:
                return []
        return sorted(path.removeprefix(root) for path in found if path.startswith(root))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, in order; none where there are only names with slashes."""
        if self.scheme in OBJECTS:
            return []
        with self.reaching("list"):
            try:
                listed = self.fs.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return []
            return sorted(one["name"].rstrip("/").rpartition("/")[2] for one in listed if one["type"] == "directory")

    def remove_folder(self, name: str) -> None:
        """Take a folder away if there is nothing in it; else it stays."""
        if self.scheme not in OBJECTS:
            with self.reaching("remove"), contextlib.suppress(OSError):
                if not self.fs.ls(self.path(name), detail=False):  # as not every file system asks
                    self.fs.rmdir(self.path(name))

    def clear_up(self, older_than: float = A_DAY) -> None:
        """Take away what writers that were killed have left so many seconds ago, where they leave something."""

    def _make_folder(self, name: str) -> None:
        if self.scheme not in OBJECTS:
            self.fs.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)


class Memory(Place):
    """The memory of this process: one writer at a time."""

    def create(self, name: str, data: bytes) -> bool:
        with _IN_PROCESS:
            return super().create(name, data)


def _texts(options: Any) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, str):
            yield str(name), value
        elif isinstance(value, dict):
            yield from _texts(value)
