"""What a step is told by the host, in one copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Inputs"]


class Inputs:
    """The tensors that graphs read: for each row its token, the token's position, how many tokens there are, and its pages.

    Args:
        rows: The most rows.
        pages: The most pages of a row.
        device: Where graphs run.
    """

    def __init__(self, rows: int, pages: int, device: torch.device) -> None:
        self._rows, self._pages = rows, pages
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(rows * (3 + pages), dtype=torch.long, pin_memory=on_gpu)
        self._there = torch.zeros(rows * (3 + pages), dtype=torch.long, device=device)
        self._numbers, self._tables = (
            self._host[: 3 * rows].view(3, rows).numpy(),
            self._host[3 * rows :].view(rows, pages).numpy(),
        )
        self._last: list[list[int]] = [[] for _ in range(rows)]
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        self.ids, self.positions, self.lengths = self._there[: 3 * rows].view(3, rows)
        self.table = self._there[3 * rows :].view(rows, pages)

    def fill(self, rows: int, ids: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Tell ``rows`` rows; those past the last one given are nobody's, and write into page 0."""
        if self._copied is not None:
            self._copied.synchronize()  # the copy before this one reads what is written here
        blank = rows - len(ids)
        self._numbers[0, :rows] = [*ids, *[0] * blank]
        self._numbers[1, :rows] = [*positions, *[0] * blank]
        self._numbers[2, :rows] = [*(place + 1 for place in positions), *[1] * blank]
        for row, table in enumerate((*tables, *[[]] * blank)):
            pages = list(table[: self._pages])
            if pages != self._last[row]:
                self._tables[row, : len(pages)] = pages
                self._tables[row, len(pages) :] = 0
                self._last[row] = pages
        end = 3 * self._rows + rows * self._pages
        self._there[:end].copy_(self._host[:end], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
