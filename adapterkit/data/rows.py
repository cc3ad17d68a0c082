"""A row of data and where it is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Row"]


@attrs.frozen
class Row:
    """One row.

    Attributes:
        cells: Values by column.
        where: The row's place, as errors name it: ``"train.csv:17"`` (a line) or ``"train.parquet[16]"`` (an index).
    """

    cells: Mapping[str, Any]
    where: str
