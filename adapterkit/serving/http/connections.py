"""Connections that are let go: where a client sends its request byte by byte, or nothing at all; and where there are too many."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["Connection"]

ORDER = itertools.count()


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 over h11, which keeps little of a head that has no end, with a clock: each head has to come in time.

    No clock runs while a request is answered; how long its body may take is the gate's to say.

    Args:
        read_timeout: Seconds.
        most: Connections that may be open; where there are more, the one that has waited longest for a request is closed.

    Attributes:
        waits_since: Its place in the order in which connections began to wait for a request; infinite while one is under way.
    """

    def __init__(self, *given: Any, read_timeout: float, most: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._read_timeout, self._most = read_timeout, most
        self._clock: asyncio.TimerHandle | None = None
        self.waits_since = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self._most:
            waiting: Any = self.connections  # this one too, where requests are under way in all others
            min(waiting, key=lambda one: one.waits_since).let_go()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """It is answered, and may ask again."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(self._read_timeout, self.transport.close)
            self.waits_since = next(ORDER)

    def let_go(self) -> None:
        """Close it."""
        self._stop()
        self.transport.close()

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock, self.waits_since = None, math.inf
