"""The engine for asyncio."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

from adapterkit.contracts import Text
from adapterkit.errors import ConfigError

from .engine import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from adapterkit.base import Base
    from adapterkit.generation import Prompt

    from .answering import Answer

__all__ = ["AsyncEngine"]


class AsyncEngine:
    """An :class:`Engine` whose calls are awaited; a task that is cancelled gives its request up.

    Args:
        engine: An engine, or a base to make one on.
        *given: What :class:`Engine` takes after a base.
        **options: The same by name.
    """

    def __init__(self, engine: Engine | Base, *given: Any, **options: Any) -> None:
        if isinstance(engine, Engine) and (given or options):
            raise ConfigError("options of the engine do not fit", ["it is made already: give a base with them"])
        self.engine = engine if isinstance(engine, Engine) else Engine(engine, *given, **options)

    async def submit(self, prompt: Prompt | Sequence[int], **asked: Any) -> Answer:
        """Ask for an answer, of which ``async for`` gives the pieces; takes and raises what :meth:`Engine.submit` does."""
        made: list[Answer] = []
        is_given_up = threading.Event()

        def ask() -> Answer:
            made.append(self.engine.submit(prompt, **asked))
            if is_given_up.is_set():
                made[0].cancel()
            return made[0]

        try:
            # it reads the prompt, and may look a name up on the disk: not on the event loop
            return await asyncio.to_thread(ask)
        except asyncio.CancelledError:
            is_given_up.set()  # the thread goes on, and nobody waits for its answer
            for answer in made:
                answer.cancel()
            raise

    async def generate(self, prompts: Any, **asked: Any) -> str | list[str]:
        """Answer prompts, all at once; see :meth:`Engine.generate`."""
        if isinstance(prompts, (str, Text)):
            return await self._text(prompts, asked)
        tasks = [asyncio.ensure_future(self._text(prompt, asked)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # where one has failed, nobody waits for the others
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stream(self, prompt: Prompt | Sequence[int], **asked: Any) -> AsyncIterator[str]:
        """The text of an answer, piece by piece. Leaving it early cancels the request."""
        answer = await self.submit(prompt, **asked)
        try:
            async for piece in answer:
                if piece.text:
                    yield piece.text
        finally:
            answer.cancel()

    async def close(self, *, drain: float = 0.0) -> None:
        """See :meth:`Engine.close`."""
        await asyncio.to_thread(self.engine.close, drain=drain)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _text(self, prompt: Any, asked: dict[str, Any]) -> str:
        return "".join([piece async for piece in self.stream(prompt, **asked)])
