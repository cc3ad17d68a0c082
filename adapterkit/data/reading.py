"""Reads rows from whatever holds them, one by one; every row keeps its place."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from adapterkit.errors import DataError, suggest

from .rows import Row
from .tables import csv_rows, quoted_throughout, tsv_rows
from .trees import json_line_rows, json_rows, known, parquet_rows

__all__ = ["SUFFIXES", "Row", "explain_missing", "file_name", "iter_rows", "read_rows"]

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
AT_ONCE = 1000
"""Rows that are taken out of a ``Dataset`` or ``DataFrame`` together."""

Tell = Callable[[int, int], None]
"""Hears how much of how much has been read: bytes or rows."""


def read_rows(source: Any) -> list[Row]:
    """The rows of ``source``, in order.

    Args:
        source: The path of a .csv, .tsv, .json, .jsonl, .ndjson (each also with .gz) or .parquet file; a
            ``datasets.Dataset``; a pandas ``DataFrame``; or an iterable of mappings. Text files are UTF-8, with or
            without a byte-order mark. Blank lines hold no row; every other line does.

    Raises:
        DataError: There is no such file, it cannot be parsed (the error names the line), or it holds no row.
    """
    return list(iter_rows(source))


def iter_rows(source: Any, tell: Tell = lambda _done, _total: None) -> Iterator[Row]:
    """The same rows one by one: what is read is not kept. What is wrong with a row is said when it is reached.

    Raises:
        DataError: As :func:`read_rows`; that there is no such file, at the first row.
    """
    is_file = isinstance(source, (str, os.PathLike))
    empty = True
    for row in _file_rows(Path(source), tell) if is_file else _value_rows(source, tell):
        empty = False
        yield row
    if empty:
        name = repr(str(source)) if is_file else f"the {type(source).__name__}"
        raise DataError(f"{name} holds no rows")


def _file_rows(path: Path, tell: Tell) -> Iterator[Row]:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes[-1:] == [".gz"]
    kind = "".join((suffixes[:-1] if packed else suffixes)[-1:])
    if not path.is_file():
        raise DataError(explain_missing(path))
    if kind not in SUFFIXES or (packed and kind == ".parquet"):
        raise DataError(f"cannot tell what {str(path)!r} holds: the name must end in {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as raw:
            if not raw.read(1):
                raise DataError(f"{str(path)!r} is empty")
            raw.seek(0)
            rows = (
                parquet_rows(raw, path.name, tell) if kind == ".parquet" else _text_rows(path, kind, raw, packed=packed)
            )
            size = path.stat().st_size
            none = True
            for number, row in enumerate(rows):
                none = False
                yield row
                if number % AT_ONCE == 0 and kind != ".parquet":
                    tell(raw.tell(), size)
        if none and kind != ".parquet" and _is_blank(path, packed=packed):
            raise DataError(f"{str(path)!r} is empty")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, packed=packed) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: not a whole gzip file ({error})") from error


def _text_rows(path: Path, kind: str, raw: IO[bytes], *, packed: bool) -> Iterator[Row]:
    if kind == ".tsv":
        quoted = _quoted(path, packed=packed)
        with _text(raw, packed=packed, newline="" if quoted else "\n") as file:
            yield from tsv_rows(file, path.name, quoted=quoted)
        return
    reader = {".csv": csv_rows, ".json": json_rows}.get(kind, json_line_rows)
    with _text(raw, packed=packed, newline="" if kind == ".csv" else "\n") as file:
        yield from reader(file, path.name)


def _text(raw: IO[bytes], *, packed: bool, newline: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(gzip.open(raw) if packed else raw, encoding="utf-8-sig", newline=newline)


def _quoted(path: Path, *, packed: bool) -> bool:
    """What a first look at a whole tab-separated file says; it is not taken into memory, unless it is packed."""
    mark = len(b"\xef\xbb\xbf")
    if packed:
        whole = gzip.decompress(path.read_bytes())
        return quoted_throughout(whole, mark if whole.startswith(b"\xef\xbb\xbf") else 0)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return quoted_throughout(content, mark if content[:mark] == b"\xef\xbb\xbf" else 0)


def _is_blank(path: Path, *, packed: bool) -> bool:
    with gzip.open(path) if packed else path.open("rb") as file:
        return not any(line.strip(b" \t\r\n\xef\xbb\xbf") for line in file)


def _not_utf8(path: Path, *, packed: bool) -> DataError:
    """Where the first byte is that is no UTF-8."""
    with gzip.open(path) if packed else path.open("rb") as file:
        line, start, number = b"", 0, 0
        for number, line in enumerate(file, 1):  # noqa: B007 - the last one is what is wanted
            try:
                line.decode()
            except UnicodeDecodeError as error:
                start = error.start
                break
        first = line[:2] if number == 1 else b""
    seen = "UTF-16" if first in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
    return DataError(
        f"{path.name}:{number}: not UTF-8 (byte 0x{line[start]:02x}). If it is {seen}, convert it: "
        f"`iconv -f {seen} -t UTF-8 {path.name}`"
    )


def file_name(source: Any) -> str:
    """The name of a source that is a file, without its folder; empty for another."""
    return Path(source).name if isinstance(source, (str, os.PathLike)) else ""


def explain_missing(path: Path) -> str:
    """Why there is no file ``path``, and what there is instead."""
    if path.is_dir():
        files = _data_files(path)
        return f"{str(path)!r} is a folder; name one file in it: {', '.join(files) or 'it holds no data file'}"
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    if folder != path.parent:
        return f"no file {str(path)!r}: there is no folder {str(path.parent)!r}"
    files = _data_files(folder)
    nearby = f" Data files in {str(folder)!r}: {', '.join(files)}." if files else ""
    return f"no file {str(path)!r}{suggest(path.name, files) or '.'}{nearby}"


def _data_files(folder: Path, most: int = 20) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return [name for name in names if name.lower().removesuffix(".gz").endswith(SUFFIXES)][:most]


def _value_rows(source: Any, tell: Tell) -> Iterator[Row]:
    library = type(source).__module__.partition(".")[0]
    total = len(source) if hasattr(source, "__len__") else 0
    if library == "datasets" and hasattr(source, "with_format") and not isinstance(source, Mapping):
        rows = (
            Row({column: known(value) for column, value in values.items()}, f"dataset[{index}]")
            for index, values in enumerate(source.with_format(None))
        )
    elif library == "pandas" and hasattr(source, "to_dict"):
        parts = (source.iloc[start : start + AT_ONCE].to_dict("records") for start in range(0, total, AT_ONCE))
        values = (values for part in parts for values in part)
        rows = (Row(one, f"DataFrame[{index}]") for index, one in enumerate(values))
    elif isinstance(source, Mapping):
        raise DataError(f"a mapping is not rows; pick one of its parts: {', '.join(map(repr, source))}")
    elif isinstance(source, bytes) or not isinstance(source, Iterable):
        raise DataError(f"cannot read rows from {source!r}: give a path, a dataset or a list of mappings")
    else:
        rows = (_row(values, index) for index, values in enumerate(source))
    for number, row in enumerate(rows, 1):
        yield row
        if number % AT_ONCE == 0:
            tell(number, total)


def _row(values: Any, index: int) -> Row:
    if not isinstance(values, Mapping):
        hint = '; for raw text give {"text": ...}' if isinstance(values, str) else ""
        raise DataError(f"rows[{index}] must be a mapping from column to value, not {type(values).__name__}{hint}")
    return Row(values, f"rows[{index}]")
