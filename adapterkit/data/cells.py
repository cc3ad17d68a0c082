"""Cells as data formats see them, whatever file or library they come from."""

from __future__ import annotations

import math
from numbers import Number
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["plain_cells"]


def plain_cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """The cells with numbers and truth values as text, as CSV and JSON would write them, and missing ones as None."""
    return {str(column): _plain(value) for column, value in values.items()}


def _plain(value: Any) -> Any:
    if type(value).__module__ == "numpy":
        value = value.tolist()  # both arrays and scalars: pandas gives either
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, Number) else value
