"""An answer while it is made: pieces of text from the engine's thread, taken by any other thread or by asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .asking import Choice

__all__ = ["Answer", "Piece", "Token", "Usage"]


@attrs.frozen
class Token:
    """One generated token.

    Attributes:
        id: Its number.
        text: What it reads as by itself.
        logprob: Its log-probability; None where none was asked for.
        top: The likeliest tokens at its place: number, text and log-probability.
    """

    id: int
    text: str = ""
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()


@attrs.frozen
class Piece:
    """The next part of an answer: text, and the tokens that it is of; the last one may have no text."""

    text: str
    tokens: tuple[Token, ...] = ()


@attrs.frozen
class Usage:
    """What an answer took.

    Attributes:
        prompt_tokens: Tokens of the prompt, virtual ones aside.
        completion_tokens: Tokens that were generated.
        cached_tokens: Tokens of the prompt whose keys and values another request of the same adapters had left.
        queued: Seconds until its first token was begun.
        first_token: Seconds until its first token was there.
        seconds: Seconds until it was done.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    queued: float = 0.0
    first_token: float = 0.0
    seconds: float = 0.0


class Answer:
    """One request under way. Iterate over it for its pieces, or call :meth:`result` for all of its text; each as often as you like.

    Attributes:
        id: The request's.
        choice: The adapters that it is answered with.
        prompt_tokens: How many tokens its prompt has.
        finish_reason: ``"stop"``, ``"length"`` or ``"cancelled"`` once it is done; else None.
        usage: What it took, once it is done.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name for it
        choice: Choice,
        prompt_tokens: int,
        *,
        on_cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self.id, self.choice, self.prompt_tokens = id, choice, prompt_tokens
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._pieces: list[Piece] = []
        self._error: BaseException | None = None
        self._done = False
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []
        self._cancelled = threading.Event()
        self._on_cancel = on_cancel

    # -- for whoever asked

    def __iter__(self) -> Iterator[Piece]:
        """The pieces from the first on, as they come; raises what the request failed of."""
        for number in itertools.count():
            with self._changed:
                self._changed.wait_for(lambda: self._has(number))  # noqa: B023 - called at once
            piece = self._at(number)
            if piece is None:
                return
            yield piece

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The same for asyncio. Leaving the loop early does not cancel the request; :meth:`cancel` does."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(news.set)

        with self._changed:
            self._wakers.append(wake)
        try:
            for number in itertools.count():
                while not self._has(number):
                    await news.wait()
                    news.clear()
                piece = self._at(number)
                if piece is None:
                    return
                yield piece
        finally:
            with self._changed:
                self._wakers.remove(wake)

    def result(self) -> str:
        """All of the text, once it is there; raises what the request failed of."""
        return "".join(piece.text for piece in self)

    def cancel(self) -> None:
        """Give the request up: its place in the batch is free from the next step on."""
        if not self._done:
            self._cancelled.set()
            self._on_cancel()

    @property
    def cancelled(self) -> bool:
        """Whether somebody gave it up."""
        return self._cancelled.is_set()

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._done

    # -- for the engine

    def put(self, piece: Piece) -> None:
        """Add a piece."""
        with self._changed:
            self._pieces.append(piece)
            self._notify()

    def finish(self, reason: str, usage: Usage) -> None:
        """Say that it is whole."""
        with self._changed:
            self.finish_reason, self.usage, self._done = reason, usage, True
            self._notify()

    def fail(self, error: BaseException) -> None:
        """Say that nothing more will come, and why."""
        with self._changed:
            self._error, self._done = error, True
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            wake()

    def _has(self, number: int) -> bool:
        """Whether there is such a piece, or never will be."""
        return number < len(self._pieces) or self._done

    def _at(self, number: int) -> Piece | None:
        with self._changed:
            if number < len(self._pieces):
                return self._pieces[number]
            if self._error is not None:
                raise self._error
            return None
