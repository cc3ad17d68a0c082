"""``adapterkit export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

from cyclopts import Parameter

from adapterkit.exporting import export as run

from .acting import read_acting
from .flags import as_flags
from .opening import AsJson  # noqa: TC001 - the same
from .outputs import check_output, folders_of
from .plugins import PluginFiles, registry_with

__all__ = ["export"]


def export(
    adapter: Annotated[
        str, Parameter(help="An adapter's folder, a blend's file, or several: out/cards*0.7+out/tone*0.3.")
    ],
    output: Annotated[
        Path,
        Parameter(help="A folder for the files; one with an adapter is replaced where the form is an adapter too."),
    ],
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
    acting = read_acting(registry, adapter)
    check_output(output, [*folders_of(adapter), *([] if base is None else [base])])
    with as_flags("to", "base"):
        written = run(acting, output, to, base=base, registry=registry)
    if as_json:
        print(json.dumps({"folder": str(output), "files": written.files, "use": written.use}, indent=2))
        return
    print(output)
    print(written.use, file=sys.stderr)
