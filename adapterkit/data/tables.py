"""Comma-separated and tab-separated text, with true line numbers."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, TextIO

from adapterkit.errors import DataError

from .rows import Row

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Iterator

__all__ = ["csv_rows", "quoted_throughout", "read_csv", "read_tsv", "tsv_rows"]

# A whole file of cells that are either quoted, with inner quotes doubled, or hold no quote at all (RFC 4180's grammar).
# The possessive quantifiers keep it linear in the length of the file.
_PROPERLY_QUOTED = re.compile(r'(?:(?:"(?:[^"]++|"")*+"|[^"\t\r\n]*+)(?:\t|\r\n|\r|\n|\Z))*+')
_PROPERLY_QUOTED_BYTES = re.compile(_PROPERLY_QUOTED.pattern.encode())


def csv_rows(file: TextIO, name: str) -> Iterator[Row]:
    """The rows of comma-separated text whose first line names the columns; quotes as in RFC 4180."""
    return _table(_parsed(file, name, ","), name)


def tsv_rows(file: TextIO, name: str, *, quoted: bool) -> Iterator[Row]:
    """The rows of tab-separated text whose first line names the columns.

    Quotes are ordinary characters, as tab-separated files mostly mean them, unless the file is quoted throughout.
    """
    if quoted:
        return _table(_parsed(file, name, "\t"), name)
    lines = ((number, line.removesuffix("\n").removesuffix("\r")) for number, line in enumerate(file, 1))
    return _table(((number, line.split("\t")) for number, line in lines if line), name)


def quoted_throughout(content: bytes | mmap.mmap, start: int = 0) -> bool:
    """Whether every cell that holds a quote is enclosed in quotes and doubles the inner ones, as CSV writers do it."""
    return content.find(b'"', start) >= 0 and _PROPERLY_QUOTED_BYTES.fullmatch(content, start) is not None


def read_csv(text: str, name: str) -> list[Row]:
    """All of :func:`csv_rows` of a text."""
    return list(csv_rows(io.StringIO(text, newline=""), name))


def read_tsv(text: str, name: str) -> list[Row]:
    """All of :func:`tsv_rows` of a text."""
    quoted = quoted_throughout(text.encode())
    return list(tsv_rows(io.StringIO(text, newline="" if quoted else "\n"), name, quoted=quoted))


def _parsed(file: TextIO, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins; a quoted cell may go on for several lines."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{name}:{line}: {error}. {_remedy(str(error))}") from error
        if cells:
            yield line, cells


def _remedy(problem: str) -> str:
    if "limit" in problem:
        return "Put rows of such length into a .jsonl file"
    return 'A cell with quotes in it is written "so ""quoted"" cell"; a row may also lack its closing quote'


def _table(records: Iterable[tuple[int, list[str]]], name: str) -> Iterator[Row]:
    header: list[str] = []
    for line, cells in records:
        if not header:
            header = _header(cells, f"{name}:{line}")
        elif len(cells) != len(header):
            raise DataError(
                f"{name}:{line}: {len(cells)} cells, but the header has {len(header)}: {', '.join(header)}. "
                "A cell that holds the separator or a line break must be quoted"
            )
        else:
            yield Row(dict(zip(header, cells, strict=True)), f"{name}:{line}")


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where}: the header names {', '.join(map(repr, twice))} more than once")
    other = next((one for one in ";\t|" if len(names) == 1 and one in names[0]), None)
    if other:
        raise DataError(
            f"{where}: one column, {names[0]!r}: its cells seem to be separated by {other!r}; separate them by commas, or by "
            "tabs in a .tsv"
        )
    return names
