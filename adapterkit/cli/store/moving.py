"""``adapterkit store checkout | export | import``."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

from cyclopts import Parameter

from adapterkit.cli.plugins import PluginFiles, registry_with
from adapterkit.store import Store

from .common import AsJson, Ref, StoreFolder, Who, Why, counted, print_json

__all__ = ["checkout", "export", "import_"]


def checkout(
    version: Ref,
    folder: Annotated[Path, Parameter(help="Where to; an adapter that is there is replaced.")],
    *,
    store: StoreFolder = None,
) -> None:
    """Write a version as an adapter folder."""
    print(Store(store).checkout(version, folder))


def export(
    path: Annotated[Path, Parameter(help="A new folder, or a file whose name ends in .tar.")],
    versions: Annotated[
        tuple[str, ...], Parameter(help="Which versions; all without any.", negative="", show_default=False)
    ] = (),
    *,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write versions as plain adapter folders, with a list of them in store.json."""
    written = Store(store).export(path, versions or None)
    print_json(written) if as_json else print(path)
    print(counted(len(written), "version"), file=sys.stderr)


def import_(
    path: Annotated[Path, Parameter(help="An export: a folder, a .tar, or a .tar.gz.")],
    *,
    move_aliases: Annotated[
        bool, Parameter(help="Move aliases that point elsewhere here, unless they are protected.", negative="")
    ] = False,
    why: Why = "",
    who: Who = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Take in what a store has exported: all of it, through the trusted loader, or nothing."""
    held = Store(store, registry=registry_with(plugin))
    brought = held.import_(path, move_aliases=move_aliases, why=why, who=who)
    if as_json:
        print_json(brought)
        return
    for there, version in brought.added.items():
        print(version if there == str(version) else f"{version}  (there {there})")
    for there, version in brought.known.items():
        print(f"{there} is here already{'' if there == str(version) else f', as {version}'}", file=sys.stderr)
    for alias in brought.aliases:
        print(f"{alias} is set", file=sys.stderr)
    for alias in brought.kept:
        print(
            f"{alias} points elsewhere here, and is left; --move-aliases moves what is not protected", file=sys.stderr
        )
