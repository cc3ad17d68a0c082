"""Where the rows of several adapters in training are in the one batch that they share."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from adapterkit.data.lengths import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Layout", "choose_layout"]

LINEAR = 4
"""Attention over so many times h tokens takes as long as the linear layers of a block of width h, 12 h² weights."""
OVERHEAD = {"cpu": 1e8, "cuda": 3e11}
"""What a block's part in another pass takes besides arithmetic, in what could be computed meanwhile: about a millisecond, at 1e11
operations per second and core, or 3e14."""
UNPACKING = 200
"""The same for each weight that is stored in 4 or 8 bits, and computed anew in either direction."""


@attrs.frozen(eq=False)
class Layout:
    """The batch of all: every job's sequences below each other, filled up to the longest, or behind each other in a single one.

    Attributes:
        sizes: For each job, how many sequences it has, and how many tokens each of them.
        in_one: Whether they are behind each other: nothing is filled up, and a mask keeps them apart.
    """

    sizes: tuple[tuple[int, int], ...]
    in_one: bool

    @property
    def count(self) -> int:
        """How many sequences the batch of all has."""
        return 1 if self.in_one else sum(count for count, _ in self.sizes)

    @property
    def width(self) -> int:
        """How many tokens each of them has."""
        return self.tokens if self.in_one else max(width for _, width in self.sizes)

    @property
    def tokens(self) -> int:
        """How many tokens all jobs have."""
        return sum(count * width for count, width in self.sizes)

    def spans(self) -> list[tuple[int, int]]:
        """Where each job's tokens begin and end, counted through the whole batch; with them what they are filled up with."""
        width = 0 if self.in_one else self.width
        return list(pairwise(accumulate((count * (width or own) for count, own in self.sizes), initial=0)))

    def join(self, batches: Sequence[dict[str, Tensor]], ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """The batch of all: each job's own, with these ids."""
        labels = [batch["labels"] for batch in batches]
        joined = {"input_ids": self._joined(ids), "labels": self._joined(labels, IGNORED)}
        if any("segment_mask" in batch for batch in batches):
            joined["position_ids"] = self._joined([_positions(batch) for batch in batches])
            joined["segment_mask"] = self._mask(batches)
        return joined

    def split(self, value: Any, block: int) -> list[Any]:
        """Each job's part of ``value``, as it would be without the others.

        Args:
            value: What a module takes or returns: a tensor whose first dimension is that of the sequences, or of all tokens where
                ``block`` is not 1; or a tuple of such.
            block: How many consecutive entries of the first dimension belong to a sequence.
        """
        if isinstance(value, tuple):
            return list(zip(*(self.split(one, block) for one in value), strict=True))
        if not isinstance(value, Tensor):
            return [value for _ in self.sizes]
        if self.in_one:
            sizes = [count * width for count, width in self.sizes]
            if block > 1:
                return list(torch.split(value, sizes))
            parts = torch.split(value, sizes, dim=1)
            return [part.reshape(*size, *value.shape[2:]) for part, size in zip(parts, self.sizes, strict=True)]
        parts = torch.split(value, [count * block for count, _ in self.sizes])
        if block > 1 or not self._is_of_tokens(value):
            return list(parts)
        return [part[:, :width] for part, (_, width) in zip(parts, self.sizes, strict=True)]

    def whole(self, parts: Sequence[Any], before: Any, block: int) -> Any:
        """The inverse of :meth:`split`; what a part was filled up with is taken from ``before``."""
        if isinstance(before, tuple):
            columns = zip(zip(*parts, strict=True), before, strict=True)
            return tuple(self.whole(column, one, block) for column, one in columns)
        if not isinstance(before, Tensor):
            return before
        if self.in_one:
            return torch.cat(
                [part if block > 1 else part.reshape(1, -1, *part.shape[2:]) for part in parts], int(block == 1)
            )
        rows = torch.split(before, [count * block for count, _ in self.sizes])
        return torch.cat([_filled_from(part, row) for part, row in zip(parts, rows, strict=True)])

    def _is_of_tokens(self, value: Tensor) -> bool:
        """Whether the second dimension is that of the tokens; some models norm ``(batch, heads, tokens, size)``."""
        sizes = value.shape[1:]
        return sizes[:1] == (self.width,) and (len(sizes) < 3 or sizes[1] != self.width)

    def _joined(self, parts: Sequence[Tensor], fill: float = 0) -> Tensor:
        if self.in_one:
            return torch.cat([part.reshape(1, -1) for part in parts], dim=1)
        return torch.cat([functional.pad(part, (0, self.width - part.shape[-1]), value=fill) for part in parts])

    def _mask(self, batches: Sequence[dict[str, Tensor]]) -> Tensor:
        """What is added to attention scores, ``(sequences, 1, width, width)``; what fills a sequence up sees its beginning."""
        dtype = next(batch["segment_mask"].dtype for batch in batches if "segment_mask" in batch)
        own = [_own_mask(batch, dtype) for batch in batches]
        if not self.in_one:
            return torch.cat([_widened(mask, self.width) for mask in own])
        mask = torch.full((self.width, self.width), torch.finfo(dtype).min, dtype=dtype, device=own[0].device)
        start = 0
        for one in (sequence for masks in own for sequence in masks[:, 0]):
            end = start + len(one)
            mask[start:end, start:end] = one
            start = end
        return mask[None, None]


def choose_layout(
    batches: Sequence[dict[str, Tensor]], hidden_size: int, *, may_be_in_one: bool, quantized: bool = False
) -> Layout | None:
    """The cheapest layout: filling up costs linear layers, one long sequence costs attention, and passes of their own cost each.

    Args:
        batches: Each job's.
        hidden_size: The base's.
        may_be_in_one: Whether all that acts does so token by token. The base must be one that can be packed, too: the jobs'
            own batches show that.
        quantized: Whether the base's weights have to be unpacked in each pass.

    Returns:
        None where each job is better off with a pass of its own.
    """
    sizes = tuple((len(batch["input_ids"]), batch["input_ids"].shape[1]) for batch in batches)
    layouts = [Layout(sizes, in_one=False)]
    if may_be_in_one and all("segment_mask" in batch for batch in batches):
        layouts.append(Layout(sizes, in_one=True))
    device = batches[0]["input_ids"].device.type
    spared = OVERHEAD.get(device, OVERHEAD["cuda"]) * (torch.get_num_threads() if device == "cpu" else 1)
    spared += UNPACKING * 12 * hidden_size**2 * quantized
    apart = sum(_work(*size, hidden_size) for size in sizes) + (len(sizes) - 1) * spared
    best = min(layouts, key=lambda one: _work(one.count, one.width, hidden_size))
    return best if _work(best.count, best.width, hidden_size) < apart else None


def _work(count: int, width: int, hidden_size: int) -> float:
    """How many operations a block takes for so many sequences, forwards and backwards."""
    return 12.0 * hidden_size * count * width * (LINEAR * hidden_size + width)


def _positions(batch: dict[str, Tensor]) -> Tensor:
    if "position_ids" in batch:
        return batch["position_ids"]
    count, width = batch["input_ids"].shape
    return torch.arange(width, device=batch["input_ids"].device).expand(count, width)


def _own_mask(batch: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    if "segment_mask" in batch:
        return batch["segment_mask"]
    count, width = batch["input_ids"].shape
    hidden = torch.finfo(dtype).min
    causal = torch.full((width, width), hidden, dtype=dtype, device=batch["input_ids"].device).triu(1)
    return causal.expand(count, 1, width, width)


def _widened(mask: Tensor, width: int) -> Tensor:
    more, hidden = width - mask.shape[-1], torch.finfo(mask.dtype).min
    # a row of the mask must leave something to be seen; nobody looks at what becomes of it
    return functional.pad(functional.pad(mask, (0, more), value=hidden), (0, 0, 0, more), value=0.0)


def _filled_from(part: Tensor, row: Tensor) -> Tensor:
    """What was changed, followed by what of the whole lies beyond it."""
    if part.shape == row.shape:
        return part
    return torch.cat([part, row[:, part.shape[1] :]], dim=1)
