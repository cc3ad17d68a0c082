"""A replica: an engine on a base of its own, behind the same application as a server by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ray import serve

from adapterkit.base import Base
from adapterkit.errors import EngineError
from adapterkit.registry import Registry, default_registry
from adapterkit.serving.engine import Engine
from adapterkit.serving.http import create_app
from adapterkit.serving.http.logs import log_to_stderr
from adapterkit.serving.telemetry import telemetry
from adapterkit.serving.watching import Watcher, Watchers

from .passing import answered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Message

    from adapterkit.serving.answering import Answer

    from .options import Recipe

__all__ = ["Replica"]


class Replica:
    """Answers requests that an :class:`~adapterkit.serving.ray.ingress.Ingress` passes on.

    Ray Serve is told which adapters were asked for here, as the models that it multiplexes, and sends further requests for these
    here too. The engine itself decides what it holds where.
    """

    def __init__(self, recipe: Recipe) -> None:
        log_to_stderr("adapterkit")
        registry = default_registry()
        if recipe.plugins:
            registry = Registry()
            for file in recipe.plugins:
                registry.add(file)
        base = Base(recipe.base, registry=registry, **recipe.opening)
        store = recipe.open_store(registry)
        self._announce = serve.multiplexed(max_num_models_per_replica=recipe.max_adapters)(_announced)
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(
            base,
            recipe.adapters,
            store=store,
            base_name=recipe.base_name,
            watcher=Watchers(telemetry(), _Announcing(self._tell)),
            **recipe.engine,
        )
        self._app = create_app(self._engine, recipe.settings)

    async def __call__(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[list[Message]]:
        """The answer to a request, as messages of ASGI."""
        async with contextlib.aclosing(answered(self._app, scope, body)) as answer:
            async for messages in answer:
                yield messages

    async def measure(self, scope: dict[str, Any]) -> tuple[str, list[Message]]:
        """The replica's name, and its whole answer to a request for figures."""
        messages = [message async for some in self(scope, b"") for message in some]
        return serve.get_replica_context().replica_id.unique_id, messages

    def check_health(self) -> None:
        """Have Ray replace a replica whose engine is of no use any more.

        Raises:
            EngineError: It is not.
        """
        if self._engine.state in ("stopped", "failed"):
            raise EngineError(f"the engine is {self._engine.state}")

    def __del__(self) -> None:
        """Stop; Ray has waited for the requests under way."""
        engine = getattr(self, "_engine", None)  # there is none where it could not be made
        if engine is not None:
            engine.close()
            engine.watcher.flush()

    def _tell(self, name: str) -> None:
        asyncio.run_coroutine_threadsafe(self._announce(name), self._loop)


class _Announcing(Watcher):
    """Tells which adapters are asked for; only those that are served, by those who may ask, come so far."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def asked(self, answer: Answer) -> None:
        for name in answer.choice.name.split("+"):
            if name:
                self._tell(name)


async def _announced(name: str) -> str:
    """What Ray Serve keeps for an adapter: its name alone, as the engine keeps the adapter."""
    return name
