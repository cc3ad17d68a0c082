"""Several rows in one sequence: no padding to speak of, and no row sees another."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import torch

from .lengths import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.contracts import Example

__all__ = ["pack"]

ROOM = 2
"""Wider sequences can be filled more evenly, and cost more attention; at twice the longest row a few in a hundred are padding."""


def pack(
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    sequences: int | None = None,
) -> dict[str, Tensor]:
    """A batch whose sequences hold several examples each, and are about as long as one another.

    Args:
        examples: At least one.
        pad_id: The token that fills a sequence up.
        device: Where the tensors are made.
        dtype: The mask's.
        sequences: How many; by default as many as hold a little more than the longest example each.

    Returns:
        ``input_ids``, ``labels`` and ``position_ids`` of shape ``(sequences, width)``, positions counted from each
        example's own start; and ``segment_mask`` of shape ``(sequences, 1, width, width)`` in ``dtype``, what is added to
        attention scores: 0 where a token may look, that is at its own example up to itself, and the lowest number elsewhere.
        ``weights``, as long as the ids, if an example has any.
    """
    longest, total = max(map(_length, examples)), sum(map(_length, examples))
    shared = _share_out(examples, sequences or max(1, int(total / (ROOM * longest))))
    width = max(sum(map(_length, sequence)) for sequence in shared)
    rows = [_lay_out(sequence, width, pad_id) for sequence in shared]
    ids, labels, positions, segments = (torch.tensor(column, device=device) for column in zip(*rows, strict=True))
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    seen = (segments[:, :, None] == segments[:, None, :]) & causal
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    batch = {"input_ids": ids, "labels": labels, "position_ids": positions, "segment_mask": mask[:, None]}
    if any(one.weights is not None for one in examples):
        batch["weights"] = torch.tensor([_weights(sequence, width) for sequence in shared], device=device)
    return batch


def _share_out(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """The examples in ``count`` sequences, filled evenly: the longest first, into the emptiest."""
    sequences: list[list[Example]] = [[] for _ in range(count)]
    emptiest = [(0, number) for number in range(len(sequences))]
    for one in sorted(examples, key=_length, reverse=True):
        filled, number = emptiest[0]
        sequences[number].append(one)
        heapq.heapreplace(emptiest, (filled + _length(one), number))
    return sequences


def _length(example: Example) -> int:
    return len(example.input_ids)


def _weights(sequence: Sequence[Example], width: int) -> list[float]:
    weights = [weight for one in sequence for weight in one.weights or (1.0,) * len(one.input_ids)]
    return weights + [0.0] * (width - len(weights))


def _lay_out(sequence: Sequence[Example], width: int, pad_id: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Ids, labels, positions and segment numbers of one sequence; padding is a segment of its own."""
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    segments: list[int] = []
    for number, one in enumerate(sequence):
        ids += one.input_ids
        labels += [IGNORED, *one.labels[1:]]  # an example's first token is not to be guessed from the one before it
        positions += range(len(one.input_ids))
        segments += [number] * len(one.input_ids)
    rest = width - len(ids)
    return ids + [pad_id] * rest, labels + [IGNORED] * rest, [*positions, *range(rest)], segments + [-1] * rest
