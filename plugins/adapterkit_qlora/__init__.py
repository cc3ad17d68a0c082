"""QLoRA: LoRA on a base in 4 or 8 bits (Dettmers et al. 2023, arXiv 2305.14314)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapterkit import Method

__all__ = ["adapterkit_methods"]


@hookimpl
def adapterkit_methods() -> Iterator[Method]:
    """The method ``qlora``."""
    from .method import QloraMethod

    yield QloraMethod()
