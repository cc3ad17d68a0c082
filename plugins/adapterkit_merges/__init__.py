"""Merge strategies: what becomes of several updates of one weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import MergeStrategy, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_merge_strategies"]


@hookimpl
def adapterkit_merge_strategies() -> Iterator[MergeStrategy]:
    """The usual ones."""
    yield from ()
