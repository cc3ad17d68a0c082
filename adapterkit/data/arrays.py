"""The elements of a JSON array as they come, so that a large one need not be in memory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Elements"]

CHUNK = 2**20
"""Characters that are read together."""
_AT_THE_END = 16
"""An error so near the end of what is read may be a number, a literal or an escape of which the rest is not read yet."""
_SPACE = re.compile(r"[ \t\r\n]*")


class Elements:
    """Iterates over the elements of the array in a file; errors are those of :func:`json.loads`, by line and column.

    Attributes:
        line: The line that has been reached.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0
        self.line, self._column = 1, 1

    @property
    def is_array(self) -> bool:
        """Whether the file begins with an array."""
        return self._next() == "["

    def rest(self) -> str:
        """What has not been iterated over."""
        return self._text[self._at :] + self._file.read()

    def __iter__(self) -> Iterator[Any]:
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield self._value()
            while self._next() == ",":
                self._at += 1
                self._next()
                yield self._value()
            if self._next() != "]":
                raise self._error("Expecting ',' delimiter", self._at)
            self._at += 1
        if self._next():
            raise self._error("Extra data", self._at)

    def _next(self) -> str:
        """The next character that is no whitespace; empty at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        size = CHUNK
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _AT_THE_END
                if not cut_off or not self._more(size):
                    raise self._error(error.msg, error.pos) from error
                size *= 2  # a long element is not begun again for each piece of it
            else:
                return value

    def _more(self, size: int = CHUNK) -> bool:
        """Read on, and forget what is behind; False at the end of the file."""
        read = self._file.read(size)
        if not read:
            return False
        self.line, self._column = self._place(self._at)
        self._text, self._at = self._text[self._at :] + read, 0
        return True

    def _place(self, position: int) -> tuple[int, int]:
        lines = self._text.count("\n", 0, position)
        column = position - self._text.rfind("\n", 0, position) if lines else self._column + position
        return self.line + lines, column

    def _error(self, message: str, position: int) -> json.JSONDecodeError:
        error = json.JSONDecodeError(message, "", 0)
        error.lineno, error.colno = self._place(position)
        return error
