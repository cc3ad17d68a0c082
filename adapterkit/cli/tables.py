"""Tables on the command line."""

from __future__ import annotations

from typing import Any

__all__ = ["print_table"]


def print_table(rows: object, file: Any = None) -> None:
    """Rows of texts, their columns as wide as need be; on standard output where no ``file`` is given."""
    cells = [list(row) for row in rows]  # type: ignore[attr-defined]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=file)
