"""Ctrl-C in the middle of a run: the step under way is finished and its state kept, before the run ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["interruptible"]

logger = logging.getLogger("adapterkit")


@contextlib.contextmanager
def interruptible() -> Iterator[list[bool]]:
    """Within this block the first Ctrl-C puts something into the list that is given, and the second one strikes at once.

    Only where Ctrl-C is Python's own: an application that handles it itself is left alone, and so is every other thread.
    """
    asked: list[bool] = []
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if ours else None
    if before is not signal.default_int_handler:
        yield asked
        return

    def ask(number: int, frame: Any) -> None:  # noqa: ARG001 - what signal handlers take
        asked.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.warning("stopping after this step; Ctrl-C once more stops at once")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
