"""LoRA: a low-rank update beside each chosen weight (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapterkit import Method

__all__ = ["adapterkit_methods"]


@hookimpl
def adapterkit_methods() -> Iterator[Method]:
    """The method ``lora``."""
    from .method import LoraMethod

    yield LoraMethod()
