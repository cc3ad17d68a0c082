"""``adapterkit bake``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .acting import read_acting
from .flags import as_flags
from .opening import AsJson, BaseName, Revision, open_base
from .outputs import check_output, folders_of
from .plugins import PluginFiles  # noqa: TC001 - cyclopts reads the annotation

if TYPE_CHECKING:
    from adapterkit.baking import Baked

__all__ = ["bake"]

SHOWN = 3
"""How many layers the summary names: those that lost most, where they lost much."""
MUCH = 0.1


def bake(
    base: BaseName,
    adapter: Annotated[
        str, Parameter(help="An adapter's folder, a blend's file, or several: out/cards*0.7+out/tone*0.3.")
    ],
    output: Annotated[Path, Parameter(help="A new folder for the model.")],
    *,
    dtype: Annotated[
        str, Parameter(help="What to write: float32, bfloat16, float16; auto is what the base has.")
    ] = "auto",
    max_shard_size: Annotated[str, Parameter(help="The size of a file of weights.")] = "5GB",
    min_survived: Annotated[
        float, Parameter(help="How much of the update must survive the cast; 0 writes it whatever is left.")
    ] = 0.5,
    revision: Revision = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Write a model of its own: the base with adapters added to its weights, layer by layer."""
    shared = open_base(base, plugin, revision=revision, dtype=dtype)
    acting = read_acting(shared.registry, adapter)
    check_output(output, [base, *folders_of(adapter)], replaces=False)
    with as_flags("dtype", "max_shard_size", "min_survived"):
        made = shared.bake(acting, output, max_shard_size=max_shard_size, min_survived=min_survived)
    _sum_up(made)
    print(json.dumps(made.to_json(), indent=2, ensure_ascii=False) if as_json else output)


def _sum_up(made: Baked) -> None:
    said = f"{len(made.layers)} parameters changed; {made.survived:.1%} of the update survives the cast to {made.dtype}"
    least = [one for one in sorted(made.layers, key=lambda one: one.survived)[:SHOWN] if one.survived < 1.0 - MUCH]
    rest = ", ".join(f"{one.name} {one.survived:.1%}" for one in least)
    print(said + (f"; least at {rest}" if rest else ""), file=sys.stderr)
    if made.whole:
        print(f"the base was loaded whole: {made.whole}", file=sys.stderr)
