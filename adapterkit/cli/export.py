"""``adapterkit export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapterkit.adapter import Adapter
from adapterkit.compose import Blend, parse
from adapterkit.exporting import export as run

from .acting import check_acting
from .opening import AsJson  # noqa: TC001 - the same
from .plugins import PluginFiles, registry_with

if TYPE_CHECKING:
    from adapterkit.compose import Acting
    from adapterkit.registry import Registry

__all__ = ["export"]


def export(
    adapter: Annotated[
        str, Parameter(help="An adapter's folder, a blend's file, or several: out/cards*0.7+out/tone*0.3.")
    ],
    output: Annotated[Path, Parameter(help="A new folder for the files.")],
    *,
    to: Annotated[str, Parameter(help="Who reads it: portable, vllm, gguf, mlx, or a plugin's.")] = "portable",
    base: Annotated[
        str | None, Parameter(help="The base's folder, for forms that need to know its architecture.")
    ] = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Write an adapter in the form that another program reads."""
    registry = registry_with(plugin)
    written = run(_acting(adapter, registry), output, to, base=base, registry=registry)
    if as_json:
        print(json.dumps({"folder": str(output), "files": written.files, "use": written.use}, indent=2))
        return
    print(output)
    print(written.use, file=sys.stderr)


def _acting(text: str, registry: Registry) -> Acting:
    """The adapters that a text means; no base is needed to read them.

    Raises:
        ConfigError: A path is not there, or a weight is no number.
    """
    check_acting(text, "ADAPTER")

    def find(path: str) -> Acting:
        is_blend = Path(path).is_file()
        return Blend.load(path, registry=registry) if is_blend else Adapter.load(path, registry=registry)

    return find(text) if Path(text).exists() else parse(text, find)
