"""What the test Hub answers, and to whom."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

import attrs

from . import accounts, committing, downloading, listing, settings, uploading

if TYPE_CHECKING:
    from collections.abc import Callable

    from .messages import Answer, Request

__all__ = ["ROUTES", "Access", "Route", "find"]

Access = Literal["all", "account", "read", "download", "write"]


@attrs.frozen
class Route:
    """One kind of request.

    Attributes:
        method: Such as ``"GET"``; HEAD is answered as GET is.
        pattern: The path, with names in braces: ``{repo}`` is ``organisation/name``, ``{path}`` all that is left, others a part.
        function: Called with the Hub, the request, and what the names stand for.
        access: Who may: all; whoever has a token; whoever may read, download from or write into the repository.
        place: The address that it belongs to.
    """

    method: str
    pattern: str
    function: Callable[..., Answer]
    access: Access
    place: str = "hub"

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        kinds = {"repo": "[^/]+/[^/]+?", "path": ".*"}
        return re.compile(
            re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{kinds.get(name[1], '[^/]+')})", self.pattern)
        )

    def match(self, request: Request) -> dict[str, str] | None:
        """What the names stand for in a request; ``None`` if it is of another kind."""
        method = "GET" if request.method == "HEAD" else request.method
        if (self.method, self.place) != (method, request.place):
            return None
        found = self.expression.fullmatch(request.path)
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


ROUTES = (
    Route("GET", "/api/whoami-v2", accounts.whoami, "account"),
    Route("POST", "/api/validate-yaml", listing.validate_yaml, "all"),
    Route("POST", "/api/repos/create", settings.create, "account"),
    Route("DELETE", "/api/repos/delete", settings.delete, "account"),
    Route("PUT", "/api/models/{repo}/settings", settings.change, "write"),
    Route("POST", "/api/models/{repo}/tag/{revision}", settings.create_tag, "write"),
    Route("DELETE", "/api/models/{repo}/tag/{name}", settings.delete_tag, "write"),
    Route("POST", "/api/models/{repo}/branch/{name}", settings.create_branch, "write"),
    Route("DELETE", "/api/models/{repo}/branch/{name}", settings.delete_branch, "write"),
    Route("GET", "/api/models", listing.models, "all"),
    Route("GET", "/api/models/{repo}", listing.info, "read"),
    Route("GET", "/api/models/{repo}/revision/{revision}", listing.info, "read"),
    Route("GET", "/api/models/{repo}/refs", listing.refs, "read"),
    Route("GET", "/api/models/{repo}/commits/{revision}", listing.commits, "read"),
    Route("GET", "/api/models/{repo}/tree/{revision}", listing.tree, "read"),
    Route("GET", "/api/models/{repo}/tree/{revision}/{path}", listing.tree, "read"),
    Route("POST", "/api/models/{repo}/paths-info/{revision}", listing.paths_info, "read"),
    Route("GET", "/api/models/{repo}/auth-check", accounts.allowed, "download"),
    Route("GET", "/api/models/{repo}/auth-check/write", accounts.allowed, "write"),
    Route("POST", "/api/models/{repo}/preupload/{revision}", uploading.preupload, "write"),
    Route("POST", "/{repo}.git/info/lfs/objects/batch", uploading.batch, "write"),
    Route("POST", "/{repo}.git/info/lfs/objects/verify", uploading.verify, "write"),
    Route("PUT", "/{repo}/{sha256}", uploading.store, "all", "storage"),
    Route("GET", "/api/models/{repo}/xet-write-token/{revision}", uploading.xet_token, "write"),
    Route("GET", "/api/models/{repo}/xet-read-token/{revision}", downloading.xet_token, "download"),
    Route("POST", "/api/models/{repo}/commit/{revision}", committing.commit, "write"),
    Route("GET", "/{repo}/resolve/{revision}/{path}", downloading.resolve, "download"),
    Route("GET", "/{repo}/{sha256}/{path}", downloading.fetch, "all", "storage"),
    Route("GET", "{path}", downloading.strange, "all", "elsewhere"),
)


def find(request: Request) -> tuple[Route, dict[str, str]] | None:
    """The route of a request, and what its names stand for."""
    for route in ROUTES:
        if (names := route.match(request)) is not None:
            return route, names
    return None
