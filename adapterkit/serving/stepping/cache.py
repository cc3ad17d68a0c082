"""What transformers' attention layers take for a cache during one step: keys and values are in the pool's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .pool import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .pool import KVPool, Pages

__all__ = ["StepCache"]


class StepCache:
    """The pages of the rows of one step; a row's tokens come from position ``start`` on, padded on the right.

    Args:
        pool: The pages.
        rows: For each row, its pages, the position of its first token in this step, and how many there are.
        device: Where the model computes.
    """

    is_compileable = False
    is_sliding: tuple[bool, ...] = ()

    def __init__(self, pool: KVPool, rows: Sequence[tuple[Pages, int, int]], device: torch.device) -> None:
        self._pool = pool
        width, longest = max(count for *_, count in rows), max(start + count for _, start, count in rows)
        tables = [pages.table[: -(-longest // PAGE_SIZE)] for pages, *_ in rows]
        deepest = -(-longest // PAGE_SIZE)
        self.length = deepest * PAGE_SIZE
        self._tables = torch.tensor([table + [0] * (deepest - len(table)) for table in tables], device=device)
        self._slots = torch.tensor(
            [slot for pages, start, count in rows for slot in pool.slots(pages, start, count)], device=device
        )
        # only tokens that are there are written: what stands for padding may be no number
        self._there: Tensor | None = None
        if any(count < width for *_, count in rows):
            self._there = torch.tensor(
                [row * width + place for row, (*_, count) in enumerate(rows) for place in range(count)], device=device
            )

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write this step's keys and values ``(rows, heads, tokens, size)``, and read all of each row: ``length`` of them."""
        return (
            self._through(self._pool.keys[layer_idx], keys),
            self._through(self._pool.values[layer_idx], values),
        )

    def _through(self, whole: Tensor, new: Tensor) -> Tensor:
        flat = new.transpose(1, 2).reshape(-1, *whole.shape[2:])
        whole.view(-1, *whole.shape[2:])[self._slots] = flat if self._there is None else flat[self._there]
        read = whole[self._tables]
        return read.view(len(read), self.length, *whole.shape[2:]).transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - transformers' signature
        """More than 0: the engine itself has made room for virtual tokens, wherever a row begins."""
        return self.length
