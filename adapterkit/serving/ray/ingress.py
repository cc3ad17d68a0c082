"""The way in: reads which adapter a request is for, and passes it on to a replica that holds it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.responses import Response

from adapterkit.compose import named_parts
from adapterkit.errors import SelectionError, StoreError
from adapterkit.serving.http.errors import RefusalError, response_of
from adapterkit.serving.naming import MOST_TEXT

from .figures import together
from .passing import PASSED

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from .options import Recipe

__all__ = ["Ingress", "first_name"]

ASKING = {"/v1/chat/completions", "/v1/completions"}
BUSY = RefusalError(
    429, "all replicas are busy; ask again", "rate_limit_error", None, "rate_limit_exceeded", {"retry-after": "1"}
)
SLOW = RefusalError(408, "the body did not come in time")
GONE = RefusalError(
    503,
    "the replica that had the request is gone; ask again",
    "server_error",
    None,
    "replica_gone",
    {"retry-after": "1"},
)


class Ingress:
    """Passes requests on to the replicas as they are; only a replica judges them, so that nothing is judged in two ways."""

    def __init__(self, replicas: DeploymentHandle[Any], recipe: Recipe) -> None:
        self._replicas = replicas.options(stream=True)
        self._given, self._settings = set(recipe.adapters), recipe.settings
        self._store = recipe.open_store()

    async def __call__(self, request: Request) -> Response:
        """Answer a request with what a replica answers."""
        scope = {name: request.scope[name] for name in PASSED if name in request.scope}
        if request.method == "GET" and request.url.path == "/metrics":
            return await self._measure(scope)
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                body = await _read(request, self._settings.max_body)
        except TimeoutError:
            return response_of(SLOW)
        name = await asyncio.to_thread(self._affinity, body) if request.url.path in ASKING else ""
        chosen = self._replicas.options(multiplexed_model_id=name) if name else self._replicas
        return _Passed(chosen.remote(scope, body), request.headers.get("x-request-id", ""))

    def _affinity(self, body: bytes) -> str:
        """The adapter whose replica a request goes to; empty for any, as for a name that is none: Ray Serve waits for those."""
        name = first_name(body)
        if name in self._given:
            return name
        try:
            return name if self._store is not None and name in self._store.names() else ""
        except StoreError:
            return ""  # the replica says so

    async def _measure(self, scope: dict[str, Any]) -> Response:
        """The figures of all replicas, each labelled with the replica that they are of."""
        try:
            answers = await self._replicas.broadcast("measure", scope).results_async(timeout_s=10.0)
        except (RayError, RayServeException, TimeoutError):
            return response_of(GONE)
        return together(dict(answers)) if answers else response_of(GONE)


class _Passed(Response):
    """An answer that is made elsewhere."""

    def __init__(self, messages: DeploymentResponseGenerator[list[Message]], request_id: str) -> None:
        super().__init__()
        self._messages, self._id = messages, (b"x-request-id", request_id.encode("latin-1"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as it comes; where the client leaves, the replica is told."""
        begun = False
        try:
            async for messages in self._messages:
                for message in messages:
                    if not begun:  # Ray Serve says the request's name itself
                        message["headers"] = [one for one in message["headers"] if one != self._id]
                    await send(message)
                    begun = True
        except BackPressureError:
            await response_of(BUSY)(scope, receive, send)
        except (RayError, RayServeException):
            if begun:
                raise  # the status is sent: all that is left is to break off
            await response_of(GONE)(scope, receive, send)
        finally:
            self._messages.cancel()


async def _read(request: Request, most: int) -> bytes:
    """The body, or so much of it that a replica sees that it is too large; nothing where it says so itself."""
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
        return b""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            break
    return bytes(body[: most + 1])


def first_name(body: bytes) -> str:
    """The first adapter that a body names as its model, without version and weight; empty where there is none."""
    try:
        asked = json.loads(body)
        return named_parts(asked["model"][:MOST_TEXT])[0][0].partition("@")[0]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SelectionError):
        return ""  # the replica says what is wrong with it
