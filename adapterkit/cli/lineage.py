"""``adapterkit lineage``."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

from cyclopts import Parameter

from adapterkit.lineage import trace
from adapterkit.store import Store

from .opening import AsJson  # noqa: TC001 - the same
from .plugins import PluginFiles, registry_with

__all__ = ["lineage"]


def lineage(
    adapter: Annotated[str, Parameter(help="An adapter's folder, or a reference of the store such as cards@3.")],
    *,
    store: Annotated[
        Path | None, Parameter(help="The store in which its parents are looked up; the usual one by default.")
    ] = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Say where an adapter comes from: base, data, options, scores, and the adapters that it was made of."""
    registry = registry_with(plugin)
    found = trace(adapter, store=Store(store, registry=registry), registry=registry)
    print(json.dumps(found.to_json(), indent=2, ensure_ascii=False) if as_json else found)
