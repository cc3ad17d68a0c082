"""JSON, JSON Lines and Parquet."""

from __future__ import annotations

import importlib
import io
import json
from typing import Any

from adapterkit.errors import DataError

from .rows import Row

__all__ = ["read_json", "read_json_lines", "read_parquet"]


def read_json(text: str, name: str) -> list[Row]:
    """The rows of an array of objects, or of ``{"data": [...]}``."""
    value = _parse(text, name)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if not isinstance(value, list):
        raise DataError(f'{name}: must be an array of objects, or {{"data": [...]}}, not {_shape(value)}')
    return [_row(item, f"{name}[{index}]") for index, item in enumerate(value)]


def read_json_lines(text: str, name: str) -> list[Row]:
    """The rows of a file with one object on each line."""
    # not splitlines(): JSON strings may hold U+2028 and its like as they are
    lines = enumerate(text.split("\n"), 1)
    return [_row(_parse(line, name, number), f"{name}:{number}") for number, line in lines if line.strip()]


def read_parquet(content: bytes, name: str) -> list[Row]:
    """The rows of a Parquet file."""
    parquet = importlib.import_module("pyarrow.parquet")
    arrow = importlib.import_module("pyarrow")
    try:
        rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(content)).to_pylist()
    except arrow.ArrowException as error:
        raise DataError(f"{name}: not a whole Parquet file ({error})") from error
    return [Row(row, f"{name}[{index}]") for index, row in enumerate(rows)]


def _parse(text: str, name: str, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = ""
        if not line and error.msg == "Extra data":
            hint = ". One object on each line is JSON Lines: name the file .jsonl"
        if line and text.strip() in ("[", "{"):
            hint = ". One array or object over several lines is JSON: name the file .json"
        raise DataError(
            f"{name}:{line or error.lineno}: bad JSON: {error.msg} at column {error.colno}{hint}"
        ) from error
    except RecursionError as error:
        raise DataError(f"{name}:{line or 1}: nested too deeply") from error


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a row must be an object with a value for each column, not {_shape(value)}")
    return Row(value, where)


def _shape(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
