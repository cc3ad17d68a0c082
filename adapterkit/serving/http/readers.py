"""Threads in which requests are read before they wait for their turn: prompts are tokenized there, and schemas compiled."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread

from adapterkit.errors import OverloadedError

from .errors import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

__all__ = ["Readers"]

THREADS = 4
T = TypeVar("T")


class Readers:
    """A few threads of their own: whatever waits for them, all else that the server does has the threads that all share.

    Args:
        most_waiting: Requests that may wait for one of them.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting

    def check(self) -> None:
        """Refuse one more request where too many wait.

        Raises:
            OverloadedError: They do.
        """
        waiting = self._limiter.statistics().tasks_waiting
        if waiting >= self._most_waiting:
            raise OverloadedError(f"{waiting} requests wait to be read already: ask again later")

    async def run(self, work: Callable[[], T], request: Request) -> T:
        """What ``work`` returns, once it is its turn.

        Raises:
            RefusalError: The client has left meanwhile, and nothing was done.
        """
        async with self._limiter:
            if await request.is_disconnected():
                raise RefusalError(499, "the client left before its request was read")
            # the turn is this one's already, and the shared threads are others'
            return await to_thread.run_sync(work, limiter=CapacityLimiter(1))

    @cached_property
    def _limiter(self) -> CapacityLimiter:
        return CapacityLimiter(THREADS)
