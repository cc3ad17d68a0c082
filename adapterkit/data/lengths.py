"""Cuts what is too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IGNORED", "kept"]

IGNORED = -100


def kept(labels: Sequence[int], max_length: int, *, raw: bool, keep_first: bool) -> list[int]:
    """Which of a row's tokens fit into ``max_length``, as positions.

    Raw text loses its end. A conversation loses what follows its last trained token, of which nothing is learned, and
    then its beginning; ``keep_first`` spares the first token, which is how models expect a text to begin.
    """
    excess = len(labels) - max_length
    positions = list(range(len(labels)))
    if excess <= 0:
        return positions
    if raw:
        return positions[:max_length]
    last = max((index for index, label in enumerate(labels) if label != IGNORED), default=0)
    positions = positions[: max(last + 1, max_length)]
    first = positions[:1] if keep_first else []
    return first + positions[len(positions) - max_length + len(first) :]
