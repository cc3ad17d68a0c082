"""``adapterkit store``: versions of adapters on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from . import aliases, keeping, moving, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["store_command"]

SUMMARY = """Keep versions of adapters: names, aliases, history, rollback.

A reference is cards (the newest version), cards@3, cards@production (an alias), or sha256: and the beginning of a digest.
"""
COMMANDS: dict[str, Callable[..., None]] = {
    "add": versions.add,
    "list": versions.list_,
    "show": versions.show,
    "remove": versions.remove,
    "promote": aliases.promote,
    "rollback": aliases.rollback,
    "protect": aliases.protect,
    "unprotect": aliases.unprotect,
    "unalias": aliases.unalias,
    "history": aliases.history,
    "live": aliases.live,
    "checkout": moving.checkout,
    "export": moving.export,
    "import": moving.import_,
    "collect": keeping.collect,
    "verify": keeping.verify,
}


def store_command(_arguments: Sequence[str]) -> App:
    """The commands under ``adapterkit store``."""
    app = App(name="store", help=SUMMARY, help_format="plaintext")
    for name, command in COMMANDS.items():
        app.command(command, name=name, sort_key=list(COMMANDS).index(name))
    return app
