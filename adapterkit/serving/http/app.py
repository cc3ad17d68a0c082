"""The application: every route with who may call it, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import adapterkit
from adapterkit.errors import AdapterkitError
from adapterkit.serving.metrics import Metrics

from . import administration, answers, health
from .errors import ErrorBody, of_error, of_problems, of_status, response_of
from .gate import ACCESS, Gate
from .page import ASSETS, page
from .readers import Readers
from .settings import Settings
from .sources import check_patterns

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi.responses import Response

    from adapterkit.serving.engine import Engine

    from .keys import Access

__all__ = ["create_app"]

ROUTES: tuple[tuple[Access, str, str, Callable[..., Any]], ...] = (
    ("open", "GET", "/", page),
    ("open", "GET", "/health", health.health),
    ("open", "GET", "/ready", health.ready),
    ("user", "GET", "/metrics", health.measure),
    ("user", "GET", "/openapi.json", health.describe),
    ("user", "GET", "/v1/stats", health.count),
    ("user", "POST", "/v1/chat/completions", answers.chat),
    ("user", "POST", "/v1/completions", answers.complete),
    ("user", "GET", "/v1/models", administration.list_models),
    ("user", "GET", "/v1/models/{model:path}", administration.show_model),
    ("user", "GET", "/v1/adapters", administration.list_adapters),
    ("admin", "POST", "/v1/adapters", administration.add_adapter),
    ("admin", "DELETE", "/v1/adapters/{name}", administration.remove_adapter),
    ("admin", "POST", "/v1/adapters/{name}/pin", administration.pin_adapter),
    ("admin", "POST", "/v1/adapters/{name}/unpin", administration.unpin_adapter),
    ("admin", "POST", "/v1/adapters/{name}/aliases/{alias}", administration.move_alias),
    ("admin", "POST", "/v1/adapters/{name}/aliases/{alias}/rollback", administration.roll_back_alias),
    ("admin", "POST", "/v1/load_lora_adapter", administration.load_lora_adapter),
    ("admin", "POST", "/v1/unload_lora_adapter", administration.unload_lora_adapter),
    *(("open", "GET", path, file) for path, file in ASSETS.items()),
)
HIDDEN = {"/", "/openapi.json", *ASSETS}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused."},
    "5XX": {"model": ErrorBody, "description": "The server cannot answer."},
}


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """The application that answers over HTTP with an engine, to be run or mounted; the engine stays the caller's to close.

    Args:
        engine: The engine. Where a :class:`~adapterkit.serving.metrics.Metrics` is among its watchers, ``/metrics`` shows it.
        settings: Whom it lets in, and what it takes.

    Raises:
        ConfigError: Settings that do not fit.
    """
    chosen = settings or Settings()
    chosen.check()
    app = FastAPI(
        title="adapterkit",
        version=adapterkit.__version__,
        openapi_url=None,  # it is a route of the table, as all are
        docs_url=None,  # these pages fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.engine, app.state.settings = engine, chosen
    app.state.sources = check_patterns(chosen.allow_sources)
    app.state.readers = Readers(engine.options.max_queue)
    app.state.metrics = engine.watcher.find(Metrics)
    if app.state.metrics is not None:
        app.state.metrics.observe(engine)
    for access, method, path, endpoint in ROUTES:
        setattr(endpoint, ACCESS, access)
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            include_in_schema=path not in HIDDEN,
            response_model=None,
            responses=ERRORS,
            openapi_extra={} if access == "open" else {"security": [{"bearer": []}]},
        )
    app.add_exception_handler(AdapterkitError, _known)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(HTTPException, _plain)
    app.add_middleware(Gate, routes=app, settings=chosen)
    return app


async def _known(_: Request, error: Exception) -> Response:
    refusal = of_error(error)
    if refusal is None:  # the gate writes it into the log, and says no more than its number
        raise error
    return response_of(refusal)


async def _unfit(_: Request, error: Exception) -> Response:
    return response_of(of_problems(error.errors(), error.body))  # type: ignore[attr-defined]


async def _plain(_: Request, error: Exception) -> Response:
    return response_of(of_status(error.status_code, error.detail, error.headers))  # type: ignore[attr-defined]
