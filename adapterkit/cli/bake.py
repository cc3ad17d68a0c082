"""``adapterkit bake``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

from cyclopts import Parameter

from .opening import BaseName, Device, Dtype, Revision, open_base
from .plugins import PluginFiles  # noqa: TC001 - the same

__all__ = ["bake"]


def bake(
    base: BaseName,
    adapter: Annotated[str, Parameter(help="The adapter's folder.")],
    output: Annotated[Path, Parameter(help="A new folder for the model.")],
    *,
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    plugin: PluginFiles = (),
) -> None:
    """Write a model of its own: the base with an adapter added to its weights, in --dtype."""
    shared = open_base(base, plugin, revision=revision, dtype=dtype, device=device)
    shared.bake(shared.load(adapter), output)
    print(output)
