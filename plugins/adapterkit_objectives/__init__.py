"""What a run minimises: supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Objective, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_objectives"]


@hookimpl
def adapterkit_objectives() -> Iterator[Objective]:
    """The objective ``sft``."""
    from .sft import sft_loss

    yield Objective(name="sft", loss=sft_loss, summary="the next token of each answer, by cross-entropy")
