"""The application that Ray Serve runs: one way in, and replicas behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import yaml
from ray import serve

from adapterkit.config import build_config, option_names
from adapterkit.errors import ConfigError, suggest
from adapterkit.serving.http import Settings
from adapterkit.serving.options import EngineOptions
from adapterkit.store import Store

from .ingress import Ingress
from .options import RayOptions, Recipe, this_machine
from .replica import Replica

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.serve import Application

__all__ = ["app", "build"]

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what Ray listens at is not known here: a key is needed unless it is said
GRACE = 10.0
"""Seconds beyond the drain until a replica is killed."""
OPENING = ("revision", "dtype", "device", "quantize")
MOST_AT_ONCE = 10_000
"""Requests that one way in passes on at once: it holds next to nothing of each."""
SETTINGS = ("host", "port", "allow_sources", "drain", "max_body")


def build(
    base: str | os.PathLike[str],
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    base_name: str = "",
    settings: Settings | None = None,
    plugins: Sequence[str | os.PathLike[str]] = (),
    opening: Mapping[str, Any] | None = None,
    engine: Mapping[str, Any] | None = None,
    **options: Any,
) -> Application:
    """An application for ``serve.run``: replicas with an engine each, and one way in, which needs nothing of clients.

    Requests for an adapter go to a replica that has answered with it before, while that one has room. Every replica opens the base
    and what is named here by itself, so that all of it lies where every replica can read it. What is changed over HTTP is
    changed in the store alone, which all of them see; without a store nothing can be changed. A store is for one machine: with
    one, replicas run on the machine that this is called on, and those on others are refused.

    Args:
        base: A folder, or a Hub id.
        adapters: Names to ask for, and what answers: folders, blends' files, references of the store, addresses.
        store: A folder with a store, where all replicas are on one machine.
        base_name: What asks for the base alone; its own name by default.
        settings: Whom to let in. By default the keys are those of the environment, and an API key is needed.
        plugins: Files of plugins, beside those that are installed.
        opening: ``revision``, ``dtype``, ``device`` and ``quantize``, as of :class:`adapterkit.Base`.
        engine: Options of the engine, as of :class:`adapterkit.serving.EngineOptions`.
        **options: See :class:`RayOptions`.

    Raises:
        ConfigError: Options that do not fit, or no API key where others can reach Ray.
    """
    chosen = build_config(RayOptions, options, what="options for Ray")
    limits = build_config(EngineOptions, dict(engine or {}), what="options of the engine")
    let_in = settings or Settings.from_environment(host=EVERYWHERE)
    let_in.check()
    _check_names(opening or {}, OPENING, "options of the base")
    if not isinstance(adapters or {}, Mapping):
        raise ConfigError("adapters do not fit", ["each needs a name: adapters='{cards: /shared/cards}'"])
    recipe = Recipe(
        base=_placed(base),
        adapters={name: _placed(where) for name, where in (adapters or {}).items()},
        store=None if store is None else str(Store(store).folder),
        machine=this_machine(),
        base_name=base_name,
        opening=dict(opening or {}),
        plugins=tuple(os.path.realpath(file) for file in plugins),
        engine=dict(engine or {}),
        settings=attrs.evolve(let_in, shared=True),
        max_adapters=chosen.max_adapters,
    )
    batch = limits.max_batch
    replicas = serve.deployment(
        Replica,
        max_ongoing_requests=chosen.max_requests or 2 * batch,
        max_queued_requests=limits.max_queue,
        graceful_shutdown_timeout_s=let_in.drain + GRACE,
        ray_actor_options={"num_cpus": chosen.cpus, "num_gpus": _gpus(chosen, opening or {})},
        **_how_many(chosen, batch),
    )
    ways_in = serve.deployment(
        Ingress,
        num_replicas=chosen.ingresses,
        max_ongoing_requests=MOST_AT_ONCE,
        graceful_shutdown_timeout_s=let_in.drain + GRACE,
        ray_actor_options={"num_cpus": 0},
    )
    return ways_in.bind(replicas.bind(recipe), recipe)


def app(args: dict[str, Any]) -> Application:
    """The same for ``serve run adapterkit.serving.ray:app base=FOLDER replicas=2``, and for files of ``serve deploy``.

    Args:
        args: What :func:`build` takes, and in place of ``settings`` what :class:`adapterkit.serving.http.Settings` takes, such as
            ``host``, the address that Ray listens at; texts are read as YAML.

    Raises:
        ConfigError: As of :func:`build`.
    """
    given = {name: yaml.safe_load(value) if isinstance(value, str) else value for name, value in args.items()}
    named = ("base", "adapters", "store", "base_name", "plugins", "opening", "engine", *SETTINGS)
    _check_names(given, (*named, *option_names(RayOptions)), "arguments")
    if "base" not in given:
        raise ConfigError("arguments do not fit", ["base: is required: a folder, or a Hub id"])
    settings = {name: given.pop(name) for name in SETTINGS if name in given}
    return build(settings=Settings.from_environment(**{"host": EVERYWHERE, **settings}), **given)


def _placed(where: str | os.PathLike[str]) -> str:
    """A path as another process finds it; anything else as it is."""
    return os.path.realpath(where) if os.path.lexists(where) else str(where)


def _gpus(options: RayOptions, opening: Mapping[str, Any]) -> float:
    import torch

    if options.gpus is not None:
        return options.gpus
    return float(torch.cuda.is_available() and opening.get("device") != "cpu")


def _how_many(options: RayOptions, batch: int) -> dict[str, Any]:
    if options.max_replicas is None:
        return {"num_replicas": options.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": options.replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_requests or batch,
        }
    }


def _check_names(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    problems = [f"{name}: no such option{suggest(name, known)}" for name in given if name not in known]
    if problems:
        raise ConfigError(f"{what} do not fit", problems)
