"""Soft prompts: prompt tuning (Lester et al. 2021, arXiv 2104.08691) and p-tuning (Liu et al. 2021, arXiv 2103.10385)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapterkit import Method

__all__ = ["adapterkit_methods"]


@hookimpl
def adapterkit_methods() -> Iterator[Method]:
    """The methods ``prompt_tuning``, ``p_tuning`` and ``prefix_tuning``."""
    from .encoder import PTuning
    from .method import PromptTuning
    from .prefix import PrefixTuning

    yield PromptTuning()
    yield PTuning()
    yield PrefixTuning()
