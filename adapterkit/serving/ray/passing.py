"""One request through an ASGI application in this process, with its answer as messages that can be sent on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp, Message

__all__ = ["PASSED", "answered"]

PASSED = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
)
"""What of a request is sent on beside its body."""

_running: set[asyncio.Task[None]] = set()


async def answered(app: ASGIApp, scope: dict[str, Any], body: bytes) -> AsyncGenerator[list[Message], None]:
    """The messages of an application's answer, as many at a time as there are. Leaving it early is the client's leaving."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    requests = [{"type": "http.request", "body": body, "more_body": False}]
    left = asyncio.Event()

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.put_nowait(message)

    task = asyncio.ensure_future(app(scope, receive, send))
    _running.add(
        task
    )  # it is not over when the client leaves: it gives its requests up, and writes its line in the log
    task.add_done_callback(_running.discard)
    task.add_done_callback(lambda _: messages.put_nowait(None))
    try:
        while True:
            some = [await messages.get()]
            while not messages.empty():
                some.append(messages.get_nowait())
            found = [message for message in some if message is not None]
            if found:
                yield found
            if len(found) < len(some):
                break
        await task
    finally:
        left.set()
