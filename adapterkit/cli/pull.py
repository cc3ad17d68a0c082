"""``adapterkit pull``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

import attrs
from cyclopts import Parameter

from adapterkit.publishing import pull as run
from adapterkit.store import Store

from .opening import AsJson  # noqa: TC001 - the same
from .outputs import check_output
from .plugins import PluginFiles, registry_with

__all__ = ["pull"]


def pull(
    url: Annotated[str, Parameter(help="What to pull: hf://org/cards@v1; the newest version without one.")],
    *,
    name: Annotated[
        str | None, Parameter(help="What it is called in the store; org--cards by default, for hf://org/cards.")
    ] = None,
    output: Annotated[Path | None, Parameter(help="A folder to write it to as well.")] = None,
    store: Annotated[Path | None, Parameter(help="The store's folder.")] = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Bring a published adapter into the store, through the trusted loader."""
    registry = registry_with(plugin)
    if output is not None:
        check_output(output, [])
    held = Store(store, registry=registry)
    version = run(url, name=name, store=held, registry=registry)
    if output is not None:
        held.checkout(version, output)
    print(json.dumps(attrs.asdict(version), indent=2) if as_json else version)
    print(f"{version.origin}; digest {version.digest[:12]}", file=sys.stderr)
