"""Puts examples together into batches of tensors."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch

from .lengths import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.contracts import Example

__all__ = ["batches", "collate", "in_passes", "prepend"]

# Rows are sorted by length within so many batches only, so that which rows meet still changes from epoch to epoch
_SORTED_TOGETHER = 50


def batches(
    lengths: Sequence[int],
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    *,
    group_by_length: bool = True,
    rows: Sequence[int] | None = None,
) -> list[list[int]]:
    """One epoch's batches of row numbers: every row once, in an order that ``seed`` and ``epoch`` alone decide.

    With ``group_by_length``, the rows of a batch are of similar length, as rows are sorted within shuffled groups of
    fifty batches, and the batches are shuffled again. All batches are full but for one. ``rows`` are the row numbers that
    the epoch has, such as :meth:`~adapterkit.data.mixture.Mixture.epoch` gives; by default all rows once.
    """
    order = random.Random(f"{seed}/{epoch}")  # noqa: S311 - not a secret
    rows = list(range(len(lengths)) if rows is None else rows)
    order.shuffle(rows)
    if group_by_length:
        size = batch_size * _SORTED_TOGETHER
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        rows = [row for group in groups for row in sorted(group, key=lambda row: -lengths[row])]
    drawn = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if group_by_length:
        order.shuffle(drawn)
    return drawn


def in_passes(rows: Sequence[int], lengths: Sequence[int], most: int | None) -> list[list[int]]:
    """The rows of one batch in groups of at most ``most`` tokens, in order; a longer row is a group of its own."""
    passes: list[list[int]] = []
    tokens = 0
    for row in rows:
        tokens += lengths[row]
        if not passes or (most is not None and tokens > most):
            passes.append([])
            tokens = lengths[row]
        passes[-1].append(row)
    return passes


def collate(examples: Sequence[Example], pad_id: int, device: torch.device | str | None = None) -> dict[str, Tensor]:
    """A batch of shape ``(len(examples), longest)``: ``input_ids``, ``attention_mask``, ``labels``; ``weights`` if a row has any.

    Rows are padded at the right. Padding is known by its place, never by its id: a pad token that is also the
    end-of-text token stays trained where it belongs to a row.
    """
    longest = max(len(example.input_ids) for example in examples)
    padding = [longest - len(example.input_ids) for example in examples]
    rows = list(zip(examples, padding, strict=True))
    weights = {}
    if any(one.weights is not None for one in examples):
        weighed = [[*(one.weights or [1.0] * len(one.input_ids)), *[0.0] * pad] for one, pad in rows]
        weights = {"weights": torch.tensor(weighed, device=device)}
    return {
        "input_ids": torch.tensor([[*one.input_ids, *[pad_id] * pad] for one, pad in rows], device=device),
        "attention_mask": torch.tensor([[1] * len(one.input_ids) + [0] * pad for one, pad in rows], device=device),
        "labels": torch.tensor([[*one.labels, *[IGNORED] * pad] for one, pad in rows], device=device),
        **weights,
    }


def prepend(
    tokens: Sequence[Sequence[int]], input_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Ids and mask ``(batch, sequence)`` with ``tokens`` of its own before each row; rows with fewer are padded at the left."""
    width = max(map(len, tokens), default=0)
    if not width:
        return input_ids, attention_mask
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    ids = [[0] * (width - len(mine)) + list(mine) for mine in tokens]
    seen = [[0] * (width - len(mine)) + [1] * len(mine) for mine in tokens]
    return torch.cat([torch.tensor(ids).to(input_ids), input_ids], 1), torch.cat([torch.tensor(seen).to(mask), mask], 1)
