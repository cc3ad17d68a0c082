"""``adapterkit extract``."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapterkit.artifact.replacing import check_replaceable
from adapterkit.errors import ArtifactError, ConfigError
from adapterkit.extracting import extract as run

from .evaluate import print_table
from .opening import AsJson  # noqa: TC001 - cyclopts reads the annotations
from .plugins import PluginFiles, registry_with

if TYPE_CHECKING:
    from adapterkit.adapter import Adapter

__all__ = ["extract"]


def extract(
    base: Annotated[str, Parameter(help="The folder of the base.")],
    tuned: Annotated[
        str, Parameter(help="The folder of what became of it: a model, or an adapter such as a full one.")
    ],
    output: Annotated[Path, Parameter(help="A folder for the adapter.")],
    *,
    rank: Annotated[
        int | None,
        Parameter(help="The rank of each layer; 16 where no error is given either.", show_default=False),
    ] = None,
    max_error: Annotated[
        float | None,
        Parameter(help="The smallest rank of each layer with at most this relative error.", show_default=False),
    ] = None,
    target_modules: Annotated[
        tuple[str, ...],
        Parameter(help="`all-linear`, or names of layers; may be given again.", negative="", show_default=False),
    ] = ("all-linear",),
    ignore_rest: Annotated[bool, Parameter(help="Leave out what no target holds.", negative="")] = False,
    seed: Annotated[int, Parameter(help="Of the random start.")] = 0,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Make a low-rank adapter of what was tuned in full: of two models, or of an adapter with whole changes."""
    _check_output(output)
    registry = registry_with(plugin)
    adapter = run(
        base,
        tuned,
        rank,
        max_error,
        target_modules=target_modules[0] if len(target_modules) == 1 else target_modules,
        ignore_rest=ignore_rest,
        seed=seed,
        registry=registry,
    )
    adapter.save(output, registry=registry)
    if as_json:
        print(json.dumps({"folder": str(output), "digest": adapter.digest, **adapter.manifest.lineage}, indent=2))
    else:
        print_table(_rows(adapter))


def _check_output(folder: Path) -> None:
    """Say that the adapter cannot be written there before hours of work are lost on it."""
    try:
        check_replaceable(folder)
    except ArtifactError as error:
        raise ConfigError("OUTPUT does not fit", [f"{str(folder)!r}: {error}"]) from None


def _rows(adapter: Adapter) -> list[list[str]]:
    said: dict[str, Any] = adapter.manifest.lineage
    rows = [["layer", "rank", "error"]]
    rows += [[name, str(one["rank"]), f"{one['error']:.4f}"] for name, one in said["sites"].items()]
    rows.append(["all layers", "", f"{said['error']:.4f}"])
    return rows + [["left out", "", name] for name in said["lost"]]
