"""Starting it from here, on a Ray that runs or on one of this machine's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ray
from ray import serve

from adapterkit.errors import ConfigError
from adapterkit.serving.http import Settings

from .building import build

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["deploy", "stop"]

NAME = "adapterkit"


def deploy(
    base: str | os.PathLike[str],
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    settings: Settings | None = None,
    **options: Any,
) -> str:
    """Serve on Ray: on the one that this process is connected to or ``RAY_ADDRESS`` names, else on one of its own, on this machine.

    It is served until :func:`stop`, and on a Ray that was started here, no longer than this process runs.

    Args:
        base: A folder, or a Hub id.
        adapters: Names to ask for, and what answers.
        settings: Where to listen, and whom to let in; at 127.0.0.1:8000 by default, with the keys of the environment.
        **options: What :func:`build` takes.

    Returns:
        The URL.

    Raises:
        ConfigError: Options that do not fit; or Ray Serve runs already, which listens where it was told to when it was started.
    """
    chosen = settings or Settings.from_environment()
    if not chosen.port:
        raise ConfigError(
            "deploy does not fit", ["port: 0 takes a free one, and Ray listens at one on each machine: name it"]
        )
    application = build(base, adapters, settings=chosen, **options)
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of it, unless the operator wants that
        ray.init(log_to_driver=True)
    if serve.status().proxies:
        raise ConfigError(
            "deploy does not fit",
            ["Ray Serve runs already, and listens where it was told to: give it `serve.run(build(...))`"],
        )
    serve.start(http_options={"host": chosen.host, "port": chosen.port})
    serve.run(application, name=NAME, route_prefix="/")
    return f"http://{f'[{chosen.host}]' if ':' in chosen.host else chosen.host}:{chosen.port}"


def stop() -> None:
    """Serve no more: requests under way are answered first. A Ray that was started here is stopped too."""
    if not ray.is_initialized():
        return
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()
    ray.shutdown()
