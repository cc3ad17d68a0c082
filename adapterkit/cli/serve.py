"""``adapterkit serve``: OpenAI's API, one base, any adapter for each request."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path  # noqa: TC003 - read when the command is made
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapterkit.config import option_names
from adapterkit.errors import ConfigError
from adapterkit.serving import Engine, EngineOptions
from adapterkit.store import Store

from .acting import check_acting
from .flags import as_flags
from .opening import BaseName, Device, Dtype, Quantize, Revision, open_base
from .options import given, with_options
from .plugins import PluginFiles, registry_with

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["serve"]


def _serve(
    base: BaseName,
    *,
    adapter: Annotated[
        list[str] | None,
        Parameter(
            help="NAME=ADAPTER: a name to ask for, and what answers: a folder, a blend's file, cards@3 of the store, "
            "hf://org/cards@v1; may be given again.",
            negative="",
        ),
    ] = None,
    store: Annotated[
        Path | None, Parameter(help="The store whose names may be asked for; yours by default.", show_default=False)
    ] = None,
    no_store: Annotated[bool, Parameter(help="Serve nothing of a store.", negative="")] = False,
    host: Annotated[
        str, Parameter(help="The address to listen at; beyond this machine, ADAPTERKIT_API_KEY is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0 takes a free one.")] = 8000,
    allow_source: Annotated[
        list[str] | None,
        Parameter(
            help="Where adapters may be added from over HTTP: a folder, or hf://org/*; may be given again. What is in the "
            "store may always be.",
            negative="",
        ),
    ] = None,
    drain: Annotated[
        float, Parameter(help="Seconds that requests may still take when the server is told to stop.")
    ] = 30.0,
    replicas: Annotated[
        int | None,
        Parameter(
            help="Serve with so many replicas on Ray, which needs adapterkit[ray]: on the Ray that RAY_ADDRESS names, else on "
            "one of this machine's own.",
            show_default=False,
        ),
    ] = None,
    base_name: Annotated[
        str, Parameter(help="What asks for the base alone; its own name by default.", show_default=False)
    ] = "",
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    plugin: PluginFiles = (),
    **options: Any,
) -> None:
    """Serve a base and its adapters over HTTP, as OpenAI's API does.

    A request's model is the adapter that answers it: cards, cards@3, cards@production, cards+tone,
    cards*0.7+tone*0.3.

    Keys are read from ADAPTERKIT_API_KEY (who may ask) and ADAPTERKIT_ADMIN_KEY (who may change what
    is served), each one key or several with commas. Without an admin key, nothing can be changed
    over HTTP.
    """
    server = _server()
    settings = server.Settings.from_environment(
        host=host, port=port, allow_sources=tuple(allow_source or ()), drain=drain
    )
    named = _named(adapter or ())
    with as_flags("host", "port"):
        settings.check()
        server.check_port(settings)
    if no_store and store is not None:
        raise ConfigError("--no-store does not fit", ["--store is given too"])
    held = None if no_store else Store(store, registry=registry_with(plugin))
    opening = {"revision": revision, "dtype": dtype, "device": device, "quantize": quantize}
    if replicas is not None:
        with as_flags("replicas", "port", *option_names(EngineOptions)):
            _on_ray(
                base,
                named,
                settings,
                store=None if held is None else held.folder,
                base_name=base_name,
                plugins=plugin,
                opening=opening,
                engine=given(options, EngineOptions),
                replicas=replicas,
            )
        return
    shared = open_base(base, plugin, **opening)
    with as_flags(*option_names(EngineOptions)):
        engine = Engine(
            shared, named, store=held, base_name=base_name, watcher=server.telemetry(), **given(options, EngineOptions)
        )
    with engine, as_flags("allow_sources"):
        server.run(engine, settings, lambda url: _say(url, engine, keyed=bool(settings.keys.users)))


def _server() -> Any:
    """What needs ``adapterkit[serve]``.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        from adapterkit.serving.http import Settings, run
        from adapterkit.serving.http.running import check_port
        from adapterkit.serving.telemetry import telemetry
    except ImportError as error:
        raise ConfigError("serve does not fit", [f"{error}: pip install 'adapterkit[serve]'"]) from error
    return SimpleNamespace(Settings=Settings, check_port=check_port, run=run, telemetry=telemetry)


def _on_ray(base: str, adapters: dict[str, str], settings: Any, **options: Any) -> None:
    """Serve on Ray until told to stop.

    Raises:
        ConfigError: ``adapterkit[ray]`` is not installed, or options do not fit.
    """
    try:
        from adapterkit.serving.ray import deploy, stop
    except ImportError as error:
        raise ConfigError("--replicas does not fit", [f"{error}: pip install 'adapterkit[ray]'"]) from error
    told = threading.Event()
    try:
        url = deploy(base, adapters, settings=settings, **options)
        for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
            signal.signal(number, lambda *_: told.set())
        print(f"{options['replicas']} replicas at {url}", file=sys.stderr, flush=True)
        told.wait()
    finally:
        stop()


def _named(adapters: Sequence[str]) -> dict[str, str]:
    """The names that adapters are given, and where these lie.

    Raises:
        ConfigError: A name is missing or given twice, or there is no such path.
    """
    named: dict[str, str] = {}
    for text in adapters:
        name, equals, where = text.partition("=")
        if not equals or not name or not where:
            raise ConfigError(
                "--adapter does not fit", [f"{text!r} gives no name: write --adapter cards={text or 'FOLDER'}"]
            )
        if name in named:
            raise ConfigError("--adapter does not fit", [f"two adapters are called {name!r}"])
        check_acting(where)
        named[name] = where
    return named


def _say(url: str, engine: Engine, *, keyed: bool) -> None:
    served = engine.catalogue.listed()
    model = served[0].name if served else engine.catalogue.base_name
    print(f"{engine.catalogue.base_name} and {len(served)} adapters at {url}; try:", file=sys.stderr)
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    headers = '-H "Authorization: Bearer $ADAPTERKIT_API_KEY" ' * keyed + "-H 'Content-Type: application/json'"
    print(f"  curl {url}/v1/chat/completions {headers} -d '{body}'", file=sys.stderr, flush=True)


serve = with_options(_serve, EngineOptions)
