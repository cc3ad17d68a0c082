"""What is served, and changing it: OpenAI's list of models, adapters and aliases, and vLLM's two routes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Request  # noqa: TC002 - FastAPI reads the annotation
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from adapterkit.errors import ConfigError, SelectionError, UnknownNameError
from adapterkit.store.names import check_name

from .errors import RefusalError
from .parameters import Bounded
from .sources import allowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit.serving.catalogue import Served
    from adapterkit.serving.engine import Engine
    from adapterkit.serving.residency import Held

__all__ = [
    "add_adapter",
    "list_adapters",
    "list_models",
    "load_lora_adapter",
    "move_alias",
    "pin_adapter",
    "remove_adapter",
    "roll_back_alias",
    "show_model",
    "unload_lora_adapter",
    "unpin_adapter",
]

Name = Annotated[str, Field(min_length=1, max_length=200)]
Why = Annotated[str, Field(max_length=1000)]


class AdapterAsked(Bounded):
    """The body of ``POST /v1/adapters``."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    source: Annotated[str, Field(min_length=1, max_length=1000)]
    replace: bool = False


class AliasAsked(Bounded):
    """The body that moves an alias.

    ``expect`` is where it is taken to point, null for an alias that is not there yet: nothing is moved where it does not.
    """

    model_config = ConfigDict(extra="forbid")
    version: Annotated[int, Field(ge=1, lt=10**15)]
    why: Why = ""
    expect: Annotated[int, Field(ge=1, lt=10**15)] | None = None


class RollbackAsked(Bounded):
    """The body that rolls an alias back; ``expect`` is where it is taken to point: nothing is moved where it does not."""

    model_config = ConfigDict(extra="forbid")
    why: Why = ""
    expect: Annotated[int, Field(ge=1, lt=10**15)] | None = None


class LoadAsked(BaseModel):
    """The body of vLLM's ``POST /v1/load_lora_adapter``."""

    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class UnloadAsked(BaseModel):
    """The body of vLLM's ``POST /v1/unload_lora_adapter``."""

    lora_name: str = ""


# -- reading


async def list_models(request: Request) -> dict[str, Any]:
    """The base, and every name that is served."""
    engine: Engine = request.app.state.engine
    served = await run_in_threadpool(engine.catalogue.listed)
    base = engine.catalogue.base_name
    made = [_model(base, 0), *(_model(one.name, one.created, base) for one in served)]
    return {"object": "list", "data": made}


async def show_model(model: str, request: Request) -> dict[str, Any]:
    """One of them; or anything else that may be asked for as a model, such as ``cards@3`` or ``cards+tone``."""
    engine: Engine = request.app.state.engine
    base = engine.catalogue.base_name
    try:
        choice = await run_in_threadpool(engine.catalogue.resolve, model)
    except (UnknownNameError, SelectionError, ConfigError) as error:
        raise RefusalError(404, str(error), param="model", code="model_not_found") from error
    if not choice.parts:
        return _model(base, 0)
    created = {one.name: one.created for one in await run_in_threadpool(engine.catalogue.listed)}
    return _model(model, created.get(model, 0), base) | {"digest": choice.digest}


async def list_adapters(request: Request) -> dict[str, Any]:
    """What is served, with versions, aliases, and where each lies now: on the device, on the host."""
    engine: Engine = request.app.state.engine
    served = await run_in_threadpool(engine.catalogue.listed)
    held: dict[str, list[Held]] = {}
    for one in engine.residency.held():
        held.setdefault(one.digest, []).append(one)
    is_admin = request.scope["adapterkit"]["caller"].role == "admin"
    made = [_adapter(one, held, with_source=is_admin) for one in served]
    return {"object": "list", "data": made}


# -- changing; what is changed is always a name that is served, looked up and never a path


async def add_adapter(asked: AdapterAsked, request: Request) -> dict[str, Any]:
    """Serve an adapter under a name, once it is read and found to fit."""
    served = await _add(request, asked.name, asked.source, replace=asked.replace)
    return _adapter(served, {}, with_source=True)


async def remove_adapter(name: str, request: Request) -> dict[str, Any]:
    """Serve it no more; nothing on disk is deleted, and requests under way are answered."""
    engine: Engine = request.app.state.engine
    served = await _served(engine, name)
    _check_shared(request, served.name)
    await run_in_threadpool(partial(engine.remove, served.name, who=_who(request)))
    return {"name": served.name, "object": "adapter", "deleted": True}


async def pin_adapter(name: str, request: Request) -> dict[str, Any]:
    """Keep an adapter where it is computed with, whatever the traffic."""
    return await _pin(request, name, pinned=True)


async def unpin_adapter(name: str, request: Request) -> dict[str, Any]:
    """Let it go again when there is no room."""
    return await _pin(request, name, pinned=False)


async def move_alias(name: str, alias: str, asked: AliasAsked, request: Request) -> dict[str, Any]:
    """Let an alias point at a version; requests under way keep the one that they began with."""
    engine: Engine = request.app.state.engine
    served = await _served(engine, name)
    check_name(alias)
    expected = {"expect": asked.expect} if "expect" in asked.model_fields_set else {}
    told: dict[str, Any] = {"why": asked.why, "who": _who(request), **expected}
    version = await run_in_threadpool(partial(engine.catalogue.promote, served.name, asked.version, alias, **told))
    return _alias(served.name, alias, version)


async def roll_back_alias(name: str, alias: str, asked: RollbackAsked, request: Request) -> dict[str, Any]:
    """Let an alias point where it pointed before."""
    engine: Engine = request.app.state.engine
    served = await _served(engine, name)
    check_name(alias)
    expected = {"expect": asked.expect} if "expect" in asked.model_fields_set else {}
    told: dict[str, Any] = {"why": asked.why, "who": _who(request), **expected}
    version = await run_in_threadpool(partial(engine.catalogue.rollback, f"{served.name}@{alias}", **told))
    return _alias(served.name, alias, version)


async def load_lora_adapter(asked: LoadAsked, request: Request) -> Response:
    """Add an adapter of any kind, as vLLM's route of that name does."""
    if not asked.lora_name or not asked.lora_path:
        raise RefusalError(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
    engine: Engine = request.app.state.engine
    names = {one.name for one in await run_in_threadpool(engine.catalogue.listed)}
    if asked.lora_name in names and not asked.load_inplace:
        message = f"The lora adapter '{asked.lora_name}' has already been loaded. Set 'load_inplace' to replace it."
        raise RefusalError(400, message, "InvalidUserInput")
    await _add(request, asked.lora_name, asked.lora_path, replace=asked.load_inplace)
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")


async def unload_lora_adapter(asked: UnloadAsked, request: Request) -> Response:
    """Remove an adapter, as vLLM's route of that name does."""
    if not asked.lora_name:
        raise RefusalError(400, "'lora_name' needs to be provided to unload a LoRA adapter.", "InvalidUserInput")
    engine: Engine = request.app.state.engine
    try:
        served = await _served(engine, asked.lora_name)
    except UnknownNameError as error:
        said = f"The lora adapter '{asked.lora_name[:200]}' cannot be found."
        raise RefusalError(404, said, "NotFoundError") from error
    _check_shared(request, served.name)
    await run_in_threadpool(partial(engine.remove, served.name, who=_who(request)))
    return PlainTextResponse(f"Success: LoRA adapter '{served.name}' removed successfully.")


async def _add(request: Request, name: str, source: str, *, replace: bool) -> Served:
    engine: Engine = request.app.state.engine
    check_name(name)
    _check_shared(request, name)

    def add() -> Served:
        where = allowed(source, request.app.state.sources, engine.catalogue.store)
        return engine.add(name, where, who=_who(request), replace=replace)

    return await run_in_threadpool(add)


async def _pin(request: Request, name: str, *, pinned: bool) -> dict[str, Any]:
    engine: Engine = request.app.state.engine
    served = await _served(engine, name)
    if request.app.state.settings.shared:
        raise _not_shared("each of the servers holds adapters by itself, so that none can be pinned in all of them")
    choice = await run_in_threadpool(engine.catalogue.resolve, served.name)
    digests = [digest for digest, _ in choice.parts]
    for digest in (
        digests if pinned else {*digests, *served.digests}
    ):  # a name may have meant another when it was pinned
        await run_in_threadpool(engine.residency.pin if pinned else engine.residency.unpin, digest)
    return {"name": served.name, "object": "adapter", "digest": choice.digest, "pinned": pinned}


def _check_shared(request: Request, name: str) -> None:
    """Refuse what would change one of several servers, and not the others.

    Raises:
        RefusalError: There are several, and what the name means is not in their store.
    """
    engine: Engine = request.app.state.engine
    if not request.app.state.settings.shared:
        return
    if engine.catalogue.store is None:
        raise _not_shared(
            "several servers answer here, and they have no store to keep adapters in: start them with one"
        )
    if engine.catalogue.is_given(name):
        raise _not_shared(
            f"{name!r} was named when the servers were started, and is not of their store: name it anew there"
        )


def _not_shared(message: str) -> RefusalError:
    return RefusalError(409, message, code="not_shared")


async def _served(engine: Engine, name: str) -> Served:
    """What is served under a name.

    Raises:
        UnknownNameError: Nothing is.
    """
    served = {one.name: one for one in await run_in_threadpool(engine.catalogue.listed)}
    if name not in served:
        raise UnknownNameError("adapter", name[:200], served)
    return served[name]


def _who(request: Request) -> str:
    """Who changes something, for the store's journal: the beginning of the key's digest, and never the key."""
    return f"http-{request.scope['adapterkit']['caller'].name}"


def _model(name: str, created: float, parent: str | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(created),
        "owned_by": "adapterkit",
        "root": name,
        "parent": parent,
    }


def _adapter(served: Served, held: Mapping[str, Sequence[Held]], *, with_source: bool) -> dict[str, Any]:
    """A name; what is held is given by digest. A blend is where all of its adapters are."""
    own = [held.get(digest, ()) for digest in served.parts or (served.digest,)]
    numbered = zip(served.versions, served.digests, strict=True)
    source = {"source": str(served.source)} if with_source else {}  # it may be a path on the server
    return {
        "name": served.name,
        "object": "adapter",
        "digest": served.digest,
        "method": served.method,
        "bytes": served.bytes,
        "created": int(served.created),
        "aliases": dict(served.aliases),
        "versions": served.versions,
        "tiers": sorted(set.intersection(*map(_tiers, own))),
        "version_tiers": {str(number): sorted(_tiers(held[digest])) for number, digest in numbered if digest in held},
        "pinned": all(any(one.pinned for one in those) for those in own),
        "users": sum(one.users for those in own for one in those),
        **source,
    }


def _tiers(held: Sequence[Held]) -> set[str]:
    return {one.tier for one in held}


def _alias(name: str, alias: str, version: Any) -> dict[str, Any]:
    return {
        "name": name,
        "object": "alias",
        "alias": alias,
        "version": getattr(version, "number", version),
        "digest": getattr(version, "digest", None),
    }
