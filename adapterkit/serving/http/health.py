"""Whether the server lives and is ready, what it counts, and what its API is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request  # noqa: TC002 - FastAPI reads the annotation
from fastapi.responses import JSONResponse, Response

from .errors import RefusalError

if TYPE_CHECKING:
    from adapterkit.serving.engine import Engine

__all__ = ["count", "describe", "health", "measure", "ready"]


async def health() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


async def ready(request: Request) -> Response:
    """The engine takes requests; 503 while it starts, is stopped, or has failed."""
    engine: Engine = request.app.state.engine
    state = engine.state
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


async def measure(request: Request) -> Response:
    """Figures for Prometheus."""
    metrics = request.app.state.metrics
    if metrics is None:
        raise RefusalError(404, "this server was started without metrics", code="not_found")
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def count(request: Request) -> dict[str, Any]:
    """What the engine does now, and how quickly it answered of late, in JSON: for pages and scripts that look often."""
    engine: Engine = request.app.state.engine
    metrics = request.app.state.metrics
    stats, held = engine.stats(), engine.residency.held()
    tiers = {tier: [one.bytes for one in held if one.tier == tier] for tier in ("device", "host")}
    return {
        "object": "stats",
        "state": engine.state,
        "base": engine.catalogue.base_name,
        "store": engine.catalogue.store is not None,
        "uptime": stats.uptime,
        "steps": stats.steps,
        "tokens": stats.tokens,
        "running": stats.running,
        "waiting": stats.waiting,
        "kv_pages": stats.kv_pages,
        "kv_pages_used": stats.kv_pages_used,
        "tiers": {tier: {"adapters": len(sizes), "bytes": sum(sizes)} for tier, sizes in tiers.items()},
        "recent": None if metrics is None else metrics.recent.told(),
    }


async def describe(request: Request) -> dict[str, Any]:
    """The API as OpenAPI has it."""
    described: dict[str, Any] = request.app.openapi()
    described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return described
