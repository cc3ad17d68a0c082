"""What goes in and out of the test Hub."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Answer", "HangUp", "HubError", "Request", "Seen", "as_json", "content"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@attrs.frozen
class Request:
    """One HTTP request, read to its end.

    Attributes:
        place: Which of the Hub's addresses it came to: ``"hub"``, ``"storage"`` or ``"elsewhere"``.
        method: Such as ``"GET"``.
        path: As it was sent: quoted, without the query.
        query: Every value of each name.
        headers: By lower-case name.
        body: All of it.
    """

    place: str
    method: str
    path: str
    query: Mapping[str, list[str]] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)

    @property
    def token(self) -> str | None:
        """The token that it carries."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            HubError: It is none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(400, f"the body is no JSON: {error}") from None

    def flag(self, name: str) -> bool:
        """Whether the query asks for something."""
        return self.query.get(name, ["false"])[-1].lower() in {"1", "true"}


@attrs.frozen
class Seen:
    """A request in :attr:`Hub.requests`: no body and no token.

    Attributes:
        place: ``"hub"``, ``"storage"`` (what a CDN or a bucket is to the real Hub) or ``"elsewhere"`` (another host).
        method: Such as ``"GET"``.
        path: As it was sent, without the query.
        status: What was answered; ``None`` where the connection was closed instead.
        authorized: Whether it carried a token, right or wrong.
    """

    place: str
    method: str
    path: str
    status: int | None
    authorized: bool


@attrs.frozen
class Answer:
    """One HTTP answer.

    Attributes:
        status: The status code.
        headers: But for Content-Length, which is added.
        body: Its bytes, or pieces that are sent as they come.
        claimed: The Content-Length, where it is a lie; for pieces without it, nothing says how many there will be.
        cut: The connection is closed after that many bytes of the body.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes | Iterator[bytes] = b""
    claimed: int | None = None
    cut: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it gives what was asked for."""
        return self.status in {200, 206}

    @property
    def data(self) -> bytes:
        """The body, if it is of one piece; else nothing."""
        return self.body if isinstance(self.body, bytes) else b""

    @property
    def value(self) -> Any:
        """The body as JSON; ``None`` if it is not JSON."""
        if not self.ok or "json" not in self.headers.get("Content-Type", ""):
            return None
        return json.loads(self.data)

    def having(self, **headers: str) -> Answer:
        """The same with more headers, ``_`` for ``-`` in their names."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return attrs.evolve(self, headers={**self.headers, **more})


class HangUp(Exception):  # noqa: N818 - it is no error
    """The connection is closed without an answer."""


class HubError(Exception):
    """A request that is refused.

    Args:
        status: The HTTP status.
        message: What is wrong.
        code: The ``X-Error-Code`` by which clients tell errors apart, such as ``"RepoNotFound"``.
        details: What the body holds beside the message.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        **headers: str,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.details, self.headers = status, code, details or {}, headers

    @property
    def answer(self) -> Answer:
        """The same as an answer."""
        said = str(self).encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
        made = as_json({"error": str(self), **self.details}, self.status).having(X_Error_Message=said, **self.headers)
        return made.having(X_Error_Code=self.code) if self.code else made


def as_json(value: Any, status: int = 200) -> Answer:
    """An answer that holds a value."""
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(value).encode())


def content(request: Request, data: bytes, **headers: str) -> Answer:
    """An answer that holds a file, or the range of it that was asked for."""
    whole = Answer(200, {"Content-Type": "application/octet-stream"}, data).having(Accept_Ranges="bytes", **headers)
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if not asked or asked[0] == "bytes=-":
        return whole
    first, last = asked.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= stop:
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE).having(Content_Range=f"bytes */{len(data)}")
    part = whole.having(Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")
    return attrs.evolve(part, status=HTTPStatus.PARTIAL_CONTENT, body=data[start:stop])
