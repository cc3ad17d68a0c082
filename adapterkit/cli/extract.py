"""``adapterkit extract``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapterkit.extracting import extract as run
from adapterkit.extracting.engine import DEFAULT_RANK, SEEN

from .flags import as_flags
from .opening import AsJson  # noqa: TC001 - cyclopts reads the annotations
from .outputs import check_output
from .plugins import PluginFiles, registry_with

if TYPE_CHECKING:
    from adapterkit.adapter import Adapter

__all__ = ["extract"]

SHOWN = 3
"""How many layers the summary names: those of which most is cut off."""


def extract(
    base: Annotated[str, Parameter(help="The folder of the base.")],
    tuned: Annotated[
        str, Parameter(help="The folder of what became of it: a model, or an adapter such as a full one.")
    ],
    output: Annotated[Path, Parameter(help="A folder for the adapter; one that is already there is replaced.")],
    *,
    rank: Annotated[
        int | None,
        Parameter(
            help=f"The rank of each layer; a higher one keeps more. [default: {DEFAULT_RANK}, without --max-error]",
            show_default=False,
        ),
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
    check_output(output, [base, tuned])
    registry = registry_with(plugin)
    by_default = rank is None and max_error is None
    with as_flags("rank", "max_error", "target_modules", "ignore_rest", "seed"):
        adapter = run(
            base,
            tuned,
            DEFAULT_RANK if by_default else rank,  # what it cuts off is said below
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
        _sum_up(adapter, ", the default" if by_default else "")
        print(output)


def _sum_up(adapter: Adapter, why: str) -> None:
    """How much of the difference is there, and what would keep more."""
    said: dict[str, Any] = adapter.manifest.lineage
    sites = said["sites"]
    ranks = sorted({one["rank"] for one in sites.values()})
    text = f"{len(sites)} layers of rank {ranks[0]}" + (f" to {ranks[-1]}" if ranks[1:] else "") + why
    if said["error"] >= SEEN:
        worst = sorted(sites, key=lambda name: (-sites[name]["error"], name))[:SHOWN]
        most = ", ".join(f"{name} {sites[name]['error']:.1%}" for name in worst)
        cure = "a higher --rank" if "rank" in said else "a lower --max-error"
        text += f"; {said['error']:.1%} of the difference is cut off, most at {most}: {cure} keeps more"
    else:
        text += "; nothing of the difference is cut off"
    print(text, file=sys.stderr)
    if said["lost"]:
        lost = list(said["lost"])
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        print(f"left out: {', '.join(lost[:SHOWN])}{more}", file=sys.stderr)
