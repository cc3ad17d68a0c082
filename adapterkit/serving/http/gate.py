"""What every request passes before any of it is read: its origin, its key, its size; and its line in the log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.routing import Match

from .errors import RefusalError, of_status, response_of
from .keys import Caller
from .settings import ADMIN_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .keys import Access
    from .settings import Settings

__all__ = ["ACCESS", "Gate", "noted"]

ACCESS = "adapterkit_access"
"""The attribute of an endpoint that says who may call it; a route whose endpoint lacks it is closed to everybody."""
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
log = logging.getLogger("adapterkit.serving.http")


def noted(scope: Mapping[str, Any]) -> dict[str, Any]:
    """What a request's line in the log says beside its path and status: endpoints add the adapter's name, and tokens."""
    found: dict[str, Any] = scope["adapterkit"]["noted"]
    return found


class Gate:
    """The one place that lets requests in; deny by default."""

    def __init__(self, app: ASGIApp, *, routes: FastAPI, settings: Settings) -> None:
        self._app, self._routes, self._settings = app, routes, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, began, status = _headers(scope), time.perf_counter(), 0
        given = headers.get("x-request-id", "")
        name = given if ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        scope["adapterkit"] = {"id": name, "caller": Caller(), "noted": {}}

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                fixed = [(b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *fixed]
            await send(message)

        try:
            try:
                self._check(scope, headers)
                await self._app(scope, self._bounded(receive), named)
            except RefusalError as refusal:
                await response_of(refusal)(scope, receive, named)
            except Exception:
                log.exception("a request failed", extra={"fields": {"id": name}})
                if status:  # it has begun, and cannot be taken back
                    raise
                failed = RefusalError(500, f"the server failed; its log says why, under {name}", "server_error")
                await response_of(failed)(scope, receive, named)
        finally:
            self._write(scope, status, time.perf_counter() - began)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Refuse what may not go on.

        Raises:
            RefusalError: It may not.
        """
        _check_origin(self._settings, headers)
        scope["adapterkit"]["caller"] = caller = self._settings.keys.caller(
            headers.get("authorization", "").encode("latin-1")
        )
        access = self._access(scope)
        if access is not None:
            _check_access(self._settings, access, caller)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._settings.max_body:
            raise _too_large(self._settings)

    def _access(self, scope: Scope) -> Access | str | None:
        """Who may call the route that the request is for; None where there is no such route, which the router says."""
        for route in self._routes.router.routes:
            if route.matches(scope)[0] is Match.FULL:
                return getattr(getattr(route, "endpoint", None), ACCESS, "")
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """``receive``, which raises where a body without an honest Content-Length goes on for too long, or comes too slowly."""
        seen, is_whole, until = 0, False, asyncio.get_running_loop().time() + self._settings.read_timeout

        async def bounded() -> Message:
            nonlocal seen, is_whole
            if is_whole:  # what is still to come is that the client leaves
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                said = f"the body did not come within {self._settings.read_timeout:g} seconds"
                raise HTTPException(408, said, {"connection": "close"}) from None
            is_whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self._settings.max_body:
                raise HTTPException(413, _too_large(self._settings).message)
            return message

        return bounded

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        fields = {
            "id": scope["adapterkit"]["id"],
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status or 499,  # the client has left before there was one
            "milliseconds": round(seconds * 1000, 1),
            **noted(scope),
        }
        log.info("request", extra={"fields": fields})


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _check_origin(settings: Settings, headers: Mapping[str, str]) -> None:
    """Refuse what a page of another site has a browser send.

    Raises:
        RefusalError: It names another host than this one.
    """
    host = headers.get("host", "")
    if settings.host_names is not None and _host_name(host) not in settings.host_names:
        names = ", ".join(sorted(settings.host_names))
        raise RefusalError(
            400, f"the Host header names another host than this one; ask for one of {names}", code="invalid_host"
        )
    origin = headers.get("origin")
    if origin is not None and _host_of(origin) != host.lower():
        raise RefusalError(403, "pages of other sites may not ask here", "permission_error", code="cross_origin")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as "http://["
        return None


def _host_name(host: str) -> str:
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    return name.strip("[]").lower()


def _check_access(settings: Settings, access: Access | str, caller: Caller) -> None:
    """Refuse who may not call a route of this class.

    Raises:
        RefusalError: 401 for a key that is missing or unknown, 403 for one that does not open this.
    """
    keys = settings.keys
    if access == "open":
        return
    if access == "user":
        if caller.role or (not keys.users and settings.is_loopback):
            return
    elif access == "admin":
        if caller.role == "admin":
            return
        if not keys.admins:
            raise _closed(
                f"this is closed: no admin key is set; start the server with {ADMIN_KEY} to open it", "admin_closed"
            )
        if caller.role == "user":
            raise _closed("this takes an admin's key", "admin_key_needed")
    else:
        raise _closed("this is closed", "closed")
    said = "the key is not known" if caller.shown else "a key is needed: send it as `Authorization: Bearer KEY`"
    raise RefusalError(401, said, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _closed(message: str, code: str) -> RefusalError:
    return RefusalError(403, message, "permission_error", code=code)


def _too_large(settings: Settings) -> RefusalError:
    return of_status(413, f"the body is too large: at most {settings.max_body:,} bytes are taken")
