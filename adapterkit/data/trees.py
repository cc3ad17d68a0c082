"""JSON, JSON Lines and Parquet, row by row."""

from __future__ import annotations

import importlib
import io
import json
from typing import IO, TYPE_CHECKING, Any, TextIO

from adapterkit.errors import DataError

from .arrays import Elements
from .rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["json_line_rows", "json_rows", "known", "parquet_rows", "read_json_lines"]

AT_ONCE = 1000
"""Rows of a Parquet file that are taken out of it together."""
LONG_NUMBER = "a number has more digits than Python reads; put it into quotes"


def json_rows(file: TextIO, name: str) -> Iterator[Row]:
    """The rows of an array of objects, read as they come; or of ``{"data": [...]}``, read whole."""
    elements = Elements(file)
    try:
        values = elements if elements.is_array else _held(elements.rest(), name)
        for index, item in enumerate(values):
            yield _row(item, f"{name}[{index}]")
    except json.JSONDecodeError as error:
        raise _bad_json(error, name, error.lineno) from error
    except RecursionError as error:
        raise DataError(f"{name}:{elements.line}: nested too deeply") from error
    except (DataError, UnicodeDecodeError):
        raise
    except ValueError as error:
        raise DataError(f"{name}:{elements.line}: {LONG_NUMBER}") from error


def json_line_rows(file: TextIO, name: str) -> Iterator[Row]:
    """The rows of a file with one object on each line; lines end in a line feed and nowhere else."""
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _row(_parse(line.removesuffix("\n"), name, number), f"{name}:{number}")


def read_json_lines(text: str, name: str) -> list[Row]:
    """All of :func:`json_line_rows` of a text."""
    # not newline="": JSON strings may hold U+2028 and its like as they are, and a line may end in a carriage return
    return list(json_line_rows(io.StringIO(text, newline="\n"), name))


def parquet_rows(file: IO[bytes], name: str, tell: Callable[[int, int], None]) -> Iterator[Row]:
    """The rows of a Parquet file; ``tell`` hears after how many of all, as their bytes are read in no order."""
    parquet = importlib.import_module("pyarrow.parquet")
    arrow = importlib.import_module("pyarrow")
    try:
        table = parquet.ParquetFile(file)
        index = 0
        for batch in table.iter_batches(batch_size=AT_ONCE):
            for row in batch.to_pylist():
                yield Row({column: known(value) for column, value in row.items()}, f"{name}[{index}]")
                index += 1
            tell(index, table.metadata.num_rows)
    except arrow.ArrowException as error:
        raise DataError(f"{name}: not a whole Parquet file ({error})") from error


def known(value: Any) -> Any:
    """A nested cell without the fields that are null: Arrow gives every object the fields that any object of its column has."""
    if isinstance(value, dict):
        return {key: known(one) for key, one in value.items() if one is not None}
    return [known(one) for one in value] if isinstance(value, list) else value


def _held(text: str, name: str) -> list[Any]:
    value = json.loads(text)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if not isinstance(value, list):
        raise DataError(f'{name}: must be an array of objects, or {{"data": [...]}}, not {_shape(value)}')
    return value


def _parse(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _bad_json(error, name, line, text) from error
    except RecursionError as error:
        raise DataError(f"{name}:{line}: nested too deeply") from error
    except ValueError as error:
        raise DataError(f"{name}:{line}: {LONG_NUMBER}") from error


def _bad_json(error: json.JSONDecodeError, name: str, line: int, text: str = "") -> DataError:
    hint = ""
    if not text and error.msg == "Extra data":
        hint = ". One object on each line is JSON Lines: name the file .jsonl"
    if text.strip() in ("[", "{"):
        hint = ". One array or object over several lines is JSON: name the file .json"
    return DataError(f"{name}:{line}: bad JSON: {error.msg.removesuffix(' at')} at column {error.colno}{hint}")


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a row must be an object with a value for each column, not {_shape(value)}")
    return Row(value, where)


def _shape(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
