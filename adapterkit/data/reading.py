"""Reads rows from whatever holds them; every row keeps its place."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterkit.errors import DataError, suggest

from .rows import Row
from .tables import read_csv, read_tsv
from .trees import read_json, read_json_lines, read_parquet

__all__ = ["SUFFIXES", "Row", "explain_missing", "read_rows"]

_TEXT_READERS = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
SUFFIXES = (*_TEXT_READERS, ".parquet")


def read_rows(source: Any) -> list[Row]:
    """The rows of ``source``, in order.

    Args:
        source: The path of a .csv, .tsv, .json, .jsonl, .ndjson (each also with .gz) or .parquet file; a
            ``datasets.Dataset``; a pandas ``DataFrame``; or an iterable of mappings. Text files are UTF-8, with or
            without a byte-order mark. Blank lines hold no row; every other line does.

    Raises:
        DataError: There is no such file, it cannot be parsed (the error names the line), or it holds no row.
    """
    if isinstance(source, (str, os.PathLike)):
        rows = _read_file(Path(source))
        name = repr(str(source))
    else:
        rows = _read_values(source)
        name = f"the {type(source).__name__}"
    if not rows:
        raise DataError(f"{name} holds no rows")
    return rows


def _read_file(path: Path) -> list[Row]:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if not path.is_file():
        raise DataError(explain_missing(path))
    if not kind or kind[0] not in SUFFIXES or (packed and kind[0] == ".parquet"):
        raise DataError(f"cannot tell what {str(path)!r} holds: the name must end in {', '.join(SUFFIXES)}")
    content = path.read_bytes()
    if packed:
        content = _unpack(content, path.name)
    if not content.strip():
        raise DataError(f"{str(path)!r} is empty")
    if kind[0] == ".parquet":
        return read_parquet(content, path.name)
    return _TEXT_READERS[kind[0]](_decode(content, path.name), path.name)


def _unpack(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{name}: not a whole gzip file ({error})") from error


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        seen = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        raise DataError(
            f"{name}:{line}: not UTF-8 (byte 0x{content[error.start]:02x}). If it is {seen}, convert it: "
            f"`iconv -f {seen} -t UTF-8 {name}`"
        ) from error


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


def _read_values(source: Any) -> list[Row]:
    library = type(source).__module__.partition(".")[0]
    if library == "datasets" and hasattr(source, "with_format") and not isinstance(source, Mapping):
        return [Row(values, f"dataset[{index}]") for index, values in enumerate(source.with_format(None))]
    if library == "pandas" and hasattr(source, "to_dict"):
        return [Row(values, f"DataFrame[{index}]") for index, values in enumerate(source.to_dict("records"))]
    if isinstance(source, Mapping):
        raise DataError(f"a mapping is not rows; pick one of its parts: {', '.join(map(repr, source))}")
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise DataError(f"cannot read rows from {source!r}: give a path, a dataset or a list of mappings")
    return [_row(values, index) for index, values in enumerate(source)]


def _row(values: Any, index: int) -> Row:
    if not isinstance(values, Mapping):
        hint = '; for raw text give {"text": ...}' if isinstance(values, str) else ""
        raise DataError(f"rows[{index}] must be a mapping from column to value, not {type(values).__name__}{hint}")
    return Row(values, f"rows[{index}]")
