"""Errors as OpenAI's API has them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import attrs
from fastapi.responses import Response
from pydantic import BaseModel

from adapterkit.errors import (
    AdapterkitError,
    ArtifactError,
    ConfigError,
    ConflictError,
    DataError,
    DeadlineError,
    EngineError,
    OverloadedError,
    PluginError,
    RemoteError,
    SelectionError,
    StoreError,
    TrustError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ErrorBody", "RefusalError", "body_of", "of_error", "of_problems", "of_status", "response_of"]

BAD = "invalid_request_error"
SERVER = "server_error"
MOST_MESSAGE = 2000


@attrs.frozen(slots=False, eq=False)
class RefusalError(AdapterkitError):
    """A request that is not answered: what the client is told, and nothing else."""

    status: int
    message: str
    type: str = BAD
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return self.message


class ErrorBody(BaseModel):
    """The body of every error."""

    error: Told


class Told(BaseModel):
    """What a client is told of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


KINDS: tuple[tuple[type[AdapterkitError], int, str, str | None], ...] = (
    (UnknownNameError, 404, BAD, "not_found"),
    (TrustError, 403, "permission_error", "not_trusted"),
    (ConflictError, 409, BAD, "conflict"),
    (ConfigError, 400, BAD, None),
    (DataError, 400, BAD, None),
    (SelectionError, 400, BAD, None),
    (ArtifactError, 400, BAD, "adapter_refused"),
    (RemoteError, 502, SERVER, "source_unreachable"),
    (StoreError, 503, SERVER, "store_unavailable"),
    (PluginError, 400, BAD, "plugin_missing"),
    (OverloadedError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (DeadlineError, 504, SERVER, "deadline_exceeded"),
    (EngineError, 503, SERVER, "engine_unavailable"),
)
"""Status, type and code of each; the first that fits counts."""
_STATUSES = {
    404: ("not_found", "there is no such route; /openapi.json lists those that there are"),
    405: ("method_not_allowed", "this page does not take such requests"),
}


def of_error(error: Exception) -> RefusalError | None:
    """What to tell a client of an error; None for one that is nobody's business but the operator's."""
    if isinstance(error, RefusalError):
        return error
    headers = {}
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    for kind, status, type_, code in KINDS:
        if isinstance(error, kind):
            return RefusalError(status, str(error), type_, None, code, headers)
    return None


def of_status(status: int, detail: str = "", headers: Mapping[str, str] | None = None) -> RefusalError:
    """The error for a status that the framework raises."""
    code, message = _STATUSES.get(status, (None, detail or "the request cannot be answered"))
    return RefusalError(status, message, BAD if status < 500 else SERVER, None, code, headers or {})


def of_problems(problems: Sequence[Any], body: Any = None) -> RefusalError:
    """The error for a body that does not fit; says what of it and why, and repeats nothing of it."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return RefusalError(400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    # what may be of several forms has a problem for each: the one that was meant comes furthest
    first = max((one for one in problems if one["loc"][:2] == first["loc"][:2]), key=lambda one: _fit(one, body))
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _path(first, body)).lstrip(".")
    said, told = first["msg"].removeprefix("Value error, "), first.get("ctx", {}).get("param")
    message = f"{place}: {said}" if place and told is None else said
    others = len({one["loc"][:2] for one in problems}) - 1
    if others:
        message += f" (and {others} more)"
    return RefusalError(400, message, param=(told or place)[:200] or None)


def _fit(problem: Any, body: Any) -> tuple[bool, int]:
    """Whether what stands there is of the right type at least, and how far into the body a problem is."""
    return not problem["type"].endswith(("_type", "_parsing")), len(_path(problem, body))


def _path(problem: Any, body: Any) -> list[str | int]:
    """Where in the body a problem is: pydantic's place, less its names for the forms that something may be of."""
    path: list[str | int] = []
    for part in problem["loc"][1:]:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            path.append(part)
            body = body[part]
    return [*path, *problem["loc"][1:][-1:]] if problem["type"] == "missing" else path


def body_of(refusal: RefusalError) -> bytes:
    """The JSON of an error."""
    told = {
        "message": refusal.message[:MOST_MESSAGE],
        "type": refusal.type,
        "param": refusal.param,
        "code": refusal.code,
    }
    return json.dumps({"error": told}).encode()  # ASCII: what a client has sent may hold halves of characters


def response_of(refusal: RefusalError) -> Response:
    """The response of an error."""
    headers = dict(refusal.headers)
    return Response(body_of(refusal), refusal.status, headers=headers, media_type="application/json")
