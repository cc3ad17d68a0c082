"""The page at ``/``, and the files that it is made of: each has a route of its own, and nothing of a request names a file."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING

from fastapi.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

__all__ = ["ASSETS", "page"]

NAMES = (
    *("style.css", "icon.svg"),
    *("main.js", "api.js", "adapters.js", "compare.js", "charts.js", "versions.js", "dom.js"),
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes HTML."""
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # a newer server has newer files of all kinds
}


def _serve(name: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    """The endpoint of one file."""

    async def file() -> Response:
        return Response(_read(name), headers=HEADERS, media_type=TYPES[PurePath(name).suffix])

    return file


@cache
def _read(name: str) -> bytes:
    return (resources.files(__package__) / "assets" / name).read_bytes()


page = _serve("index.html")
ASSETS = {f"/page/{name}": _serve(name) for name in NAMES}
