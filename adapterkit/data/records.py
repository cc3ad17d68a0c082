"""Records as lines of JSON: what digests are taken of, and how many records are kept in little memory."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np

from adapterkit.config import canonical_json
from adapterkit.contracts import Conversation, Message, Preference, Record, Text
from adapterkit.errors import DataError

from .buffers import Buffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Records", "RecordsBuilder", "digest", "digest_of_lines", "line_of"]


def line_of(record: Record) -> bytes:
    """The record as a line of canonical JSON, in which fields that say nothing are left out.

    Raises:
        DataError: It holds half of a surrogate pair, which is no character.
    """
    try:
        return canonical_json(_plain(record)).encode() + b"\n"
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(f"holds {half!a}, which is half of a character: the text was cut or decoded wrongly") from error


def digest(records: Iterable[Record]) -> str:
    """The sha256 of the records in order, each as a line of canonical JSON."""
    return digest_of_lines(map(line_of, records))


def digest_of_lines(lines: Iterable[bytes]) -> str:
    """The sha256 of lines that :func:`line_of` made."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line)
    return total.hexdigest()


@attrs.frozen(eq=False, repr=False)
class Records(Sequence[Record]):
    """Records in order; each is made when it is asked for."""

    _bytes: Any
    _ends: Any
    _rows: Any

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        """A record; or a part of them, which shares its bytes with the whole."""
        if isinstance(index, slice):
            return attrs.evolve(self, rows=self._rows[index])
        return _record(json.loads(self._line(int(self._rows[index]))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} records>"

    def pick(self, numbers: Sequence[int] | NDArray[np.int64]) -> Records:
        """The records of these numbers, in this order."""
        return attrs.evolve(self, rows=self._rows[np.asarray(numbers, np.int64)])

    def lines(self) -> Iterator[bytes]:
        """Each record as :func:`line_of` has it."""
        return (self._line(int(row)) for row in self._rows)

    def _line(self, number: int) -> bytes:
        start = int(self._ends[number - 1]) if number else 0
        line: bytes = self._bytes[start : int(self._ends[number])].tobytes()
        return line


class RecordsBuilder:
    """Takes records one by one."""

    def __init__(self) -> None:
        self._bytes, self._ends = Buffer("B"), Buffer("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, record: Record) -> None:
        """Add a record.

        Raises:
            DataError: See :func:`line_of`.
        """
        self._bytes.extend(line_of(record))
        self._ends.extend((len(self._bytes),))

    def finish(self) -> Records:
        """All of them; nothing may be added after this."""
        ends = self._ends.finish()
        return Records(self._bytes.finish(), ends, np.arange(len(ends)))


_ALWAYS = {"role", "content", "train", "messages", "prompt", "chosen", "rejected", "text"}
"""Written whether they say something or not: what records had before they could hold more, so that digests stay."""


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, (str, float, int, type(None))):
        return value
    kept = [(name, getattr(value, name), default) for name, default in _fields(value.__class__)]
    return {name: _plain(one) for name, one, default in kept if name in _ALWAYS or one != default}


@functools.cache  # asked for each turn of each row
def _fields(cls: type[Any]) -> Sequence[tuple[str, Any]]:
    return [(field.name, field.default) for field in attrs.fields(cls)]


def _record(plain: dict[str, Any]) -> Record:
    if "text" in plain:
        parts = plain.get("trained")
        return Text(plain["text"], None if parts is None else tuple((start, end) for start, end in parts))
    turns: dict[str, Any] = {name: tuple(Message(**one) for one in plain[name]) for name in plain if name in _ALWAYS}
    rest = {name: value for name, value in plain.items() if name not in _ALWAYS}
    return Preference(**turns, **rest) if "chosen" in turns else Conversation(**turns, **rest)
