"""Names of a store that are out of service: ``serving.json`` in its folder, which every server of the store obeys at once."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import threading
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.replacing import lock, sync
from adapterkit.artifact.strict_json import parse_object
from adapterkit.errors import ArtifactError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FILE", "Withdrawn"]

FILE = "serving.json"
SCHEMA = 1


class Withdrawn:
    """Which names of a store are not to be answered with; their versions and aliases stay as they are.

    Args:
        folder: The store's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._names: dict[str, Any] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> dict[str, Any]:
        """Names, each with who took it out of service, and when.

        Raises:
            StoreError: The file is damaged: nothing is answered with names that may be withdrawn.
        """
        try:
            state = self._file.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{str(self._file)!r} cannot be read: {error.strerror}") from None
        seen = (state.st_ino, state.st_mtime_ns, state.st_size)
        if seen != self._seen:
            with self._lock:
                self._names, self._seen = self._read(), seen
        return self._names

    def add(self, name: str, who: str) -> None:
        """Take a name out of service; it is on the disk when this returns.

        Raises:
            StoreError: The file cannot be written; it is as it was.
        """
        with self._changing() as names:
            names[name] = {"who": who, "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}

    def discard(self, name: str) -> None:
        """Put a name back; raises as :meth:`add` does."""
        if name in self:
            with self._changing() as names:
                names.pop(name, None)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        held = None
        try:
            with self._lock:
                held = lock(self._folder, wait=True)  # from other processes
                names = dict(self._read())
                yield names
                self._write(names)
        except OSError as error:
            raise StoreError(f"{str(self._file)!r} cannot be written: {error.strerror}") from error
        finally:
            if held is not None:
                os.close(held)

    def _read(self) -> dict[str, Any]:
        try:
            values = parse_object(self._file.read_bytes(), FILE)
        except FileNotFoundError:
            return {}
        except (ArtifactError, OSError) as error:
            raise StoreError(f"{str(self._file)!r} cannot be read: {error}") from None
        names = values.get("withdrawn")
        if values.get("schema") != SCHEMA or not isinstance(names, dict):
            raise StoreError(f"{str(self._file)!r} is not what a server of schema {SCHEMA} writes: update adapterkit")
        return names

    def _write(self, names: dict[str, Any]) -> None:
        staging = self._file.with_name(f".{FILE}.{secrets.token_hex(8)}")
        try:
            text = json.dumps({"schema": SCHEMA, "withdrawn": dict(sorted(names.items()))}, indent=2)
            staging.write_text(text + "\n", encoding="utf-8")
            sync(staging)
            staging.replace(self._file)
            sync(self._folder)
        except BaseException:
            staging.unlink(missing_ok=True)
            raise
