"""Loggers beside a run's own log: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Logger, hookimpl

from .tensorboard import TensorBoard
from .tracking import open_trackio, open_wandb

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_loggers"]


@hookimpl
def adapterkit_loggers() -> Iterator[Logger]:
    """Those that transformers has under the same names in ``report_to``."""
    yield Logger(
        name="tensorboard",
        open=TensorBoard,
        requires="tensorboard",
        summary="event files in OUTPUT/tensorboard, or in runs/ when there is no output",
    )
    yield Logger(name="wandb", open=open_wandb, requires="wandb", summary="Weights & Biases")
    yield Logger(name="trackio", open=open_trackio, requires="trackio", summary="trackio, on this machine or a Space")
