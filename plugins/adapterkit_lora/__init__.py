"""LoRA: a low-rank update beside each chosen weight (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapterkit import Method

    from .config import LoraConfig
    from .method import LoraMethod

__all__ = ["LoraConfig", "LoraMethod", "adapterkit_methods"]


@hookimpl
def adapterkit_methods() -> Iterator[Method]:
    """The method ``lora``."""
    from .method import LoraMethod

    yield LoraMethod()


def __getattr__(name: str) -> Any:
    """What other plugins may build on, imported when it is asked for: it needs torch."""
    if name == "LoraConfig":
        from .config import LoraConfig

        return LoraConfig
    if name == "LoraMethod":
        from .method import LoraMethod

        return LoraMethod
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
