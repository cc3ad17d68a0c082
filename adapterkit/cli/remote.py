"""``adapterkit remote``: what is done with published versions."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import App, Parameter

from adapterkit import publishing
from adapterkit.artifact.markup import one_line
from adapterkit.errors import ConfigError

from .opening import AsJson  # noqa: TC001 - cyclopts reads the annotations
from .plugins import PluginFiles, registry_with

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["remote_command"]

Url = Annotated[str, Parameter(help="The repository: hf://org/cards.")]
VersionUrl = Annotated[str, Parameter(help="The version: hf://org/cards@v1.")]


def remote_command(_arguments: Sequence[str]) -> App:
    """The commands under ``adapterkit remote``."""
    app = App(name="remote", help="List, tag, roll back and delete published versions.", help_format="plaintext")
    app.command(list_, name="list")
    for command in (tag, untag, rollback, delete):
        app.command(command)
    return app


def list_(url: Url, *, as_json: AsJson = False, plugin: PluginFiles = ()) -> None:
    """List the versions, the newest first."""
    found = publishing.revisions(url, registry=registry_with(plugin))
    if as_json:
        print(json.dumps([attrs.asdict(one) for one in found], indent=2))
        return
    for one in found:
        print("  ".join([one.id[:12], one.published[:19], ",".join(one.tags) or "-", one_line(one.message)[:72]]))
    if not found:
        print("nothing is published there", file=sys.stderr)


def tag(
    url: VersionUrl,
    name: Annotated[str, Parameter(help="The name, such as v2; it never moves.")],
    *,
    plugin: PluginFiles = (),
) -> None:
    """Give a version a name."""
    print(publishing.tag(url, name, registry=registry_with(plugin)))


def untag(url: VersionUrl, *, plugin: PluginFiles = ()) -> None:
    """Take a name away; the version stays."""
    publishing.untag(url, registry=registry_with(plugin))


def rollback(
    url: VersionUrl,
    *,
    message: Annotated[str, Parameter(help="What is said of the new version.")] = "",
    plugin: PluginFiles = (),
) -> None:
    """Publish an earlier version once more, as the newest."""
    made = publishing.rollback(url, message=message, registry=registry_with(plugin))
    print(made.revision)
    if not made.is_new:
        print("this is the newest version already", file=sys.stderr)


def delete(
    url: Url,
    *,
    yes: Annotated[bool, Parameter(help="Really: every version is gone.", negative="")] = False,
    plugin: PluginFiles = (),
) -> None:
    """Delete a repository, with every version."""
    if not yes:
        raise ConfigError(f"{url} is not deleted", ["every version of it would be gone; say --yes if you mean that"])
    publishing.delete(url, registry=registry_with(plugin))
