"""Long rows of numbers: in memory while they are short, in a temporary file once they are long."""

from __future__ import annotations

import tempfile
from array import array
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from adapterkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["MOST_IN_MEMORY", "Buffer"]

MOST_IN_MEMORY = 64 * 2**20
"""Bytes; what is longer goes to a file, of which the system keeps in memory as much as there is room for."""


class Buffer:
    """Numbers of one kind, added at the end.

    Args:
        kind: As :mod:`array` writes it: ``"i"`` for 32-bit integers, ``"q"`` for 64-bit ones, ``"d"`` for floats, ``"B"`` for
            bytes.
    """

    def __init__(self, kind: str) -> None:
        self._held: array[Any] = array(kind)
        self._file: IO[bytes] | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, values: Iterable[Any] | bytes) -> None:
        """Add numbers."""
        before = len(self._held)
        if isinstance(values, bytes):
            self._held.frombytes(values)
        else:
            self._held.extend(values)
        self._length += len(self._held) - before
        if len(self._held) * self._held.itemsize >= MOST_IN_MEMORY:
            self._spill()

    def finish(self) -> NDArray[np.generic]:
        """All numbers, read-only; nothing may be added after this."""
        kind = np.dtype(self._held.typecode)
        if self._file is None:
            whole: NDArray[np.generic] = np.frombuffer(self._held, kind)
            whole.flags.writeable = False
            return whole
        self._spill()
        # as a plain array: a part of a memmap takes several times as long to make
        return np.asarray(np.memmap(self._file, kind, mode="r"))

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as what is read from it
            self._held.tofile(self._file)
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"the encoded rows cannot be put aside in {tempfile.gettempdir()!r} ({error.strerror}): make room there, or "
                "name a folder with more of it in the environment variable TMPDIR"
            ) from error
        self._held = array(self._held.typecode)
