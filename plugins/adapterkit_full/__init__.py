"""Full fine-tuning: every weight of the base, or of chosen layers, kept as its difference from the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapterkit import Method

__all__ = ["adapterkit_methods"]


@hookimpl
def adapterkit_methods() -> Iterator[Method]:
    """The method ``full``."""
    from .method import Full

    yield Full()
