"""``adapterkit plugins``: what is installed, what it provides, and why something does not work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from adapterkit.errors import UnknownNameError
from adapterkit.registry import Registry, default_registry

if TYPE_CHECKING:
    from adapterkit.registry import PluginInfo

__all__ = ["PluginFiles", "plugins", "registry_with"]

PluginFiles = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--plugin", help="A Python file to use as a plugin; may be given again.", negative="", show_default=False
    ),
]


def plugins(
    *,
    why: Annotated[
        str | None, Parameter(help="Load this plugin, and say what it provides or what is wrong with it.")
    ] = None,
    check: Annotated[bool, Parameter(help="Load every plugin, to see what each provides.", negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),
) -> None:
    """List the plugins; nothing is imported unless it is asked for."""
    registry = registry_with(plugin)
    if check:
        registry.load_all()
    listed = registry.plugins()
    if why is not None:
        listed = _explained(registry, why)
    if as_json:
        print(json.dumps([attrs.asdict(info) for info in listed], indent=2))
    else:
        _print_table(listed)


def registry_with(files: tuple[Path, ...]) -> Registry:
    """The registry of this process, or, with plugin files, one of its own for this command."""
    registry = Registry() if files else default_registry()
    for file in files:
        registry.add(file)
    return registry


def _explained(registry: Registry, name: str) -> tuple[PluginInfo, ...]:
    names = {info.name for info in registry.plugins()}
    if name not in names:
        raise UnknownNameError("plugin", name, names)
    return registry.load(name)


def _print_table(listed: tuple[PluginInfo, ...]) -> None:
    rows = [("NAME", "STATE", "FROM", "MODULE")]
    rows += [(info.name, info.state, f"{info.distribution} {info.version}", info.module) for info in listed]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row, info in zip(rows, (None, *listed), strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if info and info.provides:
            print(f"    provides {', '.join(info.provides)}")
        if info and info.reason:
            print(f"    {info.reason}")
