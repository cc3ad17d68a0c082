"""``adapterkit store add | list | show | remove``."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from adapterkit.artifact.layout import MANIFEST, MOST_JSON_BYTES
from adapterkit.artifact.markup import one_line
from adapterkit.cli.plugins import PluginFiles, registry_with
from adapterkit.cli.tables import print_table
from adapterkit.store import Store

from .common import AsJson, Ref, StoreFolder, Who, Why, print_json, size, when

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from adapterkit.store import StoredFile, Version

__all__ = ["add", "list_", "remove", "show"]


def add(
    folder: Annotated[Path, Parameter(help="An adapter's folder.")],
    name: Annotated[str, Parameter(help="What to call it: small letters, digits, dots, dashes, underscores.")],
    *,
    why: Why = "",
    who: Who = None,
    origin: Annotated[str, Parameter(help="Where it was got, as a URL with its revision.", show_default=False)] = "",
    store: StoreFolder = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Keep an adapter as the next version of a name."""
    held = Store(store, registry=registry_with(plugin))
    version = held.add(folder, name, why=why, who=who, origin=origin)
    print_json(version) if as_json else print(version)
    print(f"digest {version.digest[:12]}, in {held.folder}", file=sys.stderr)


def list_(
    name: Annotated[str | None, Parameter(help="Whose versions; all of them without it.")] = None,
    *,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """List the versions."""
    held = Store(store)
    found = held.versions(name)
    pointing: dict[tuple[str, int], list[str]] = defaultdict(list)
    for alias, target in held.aliases(name).items():
        pointing[target.name, target.number].append(alias.partition("@")[2])
    if as_json:
        print_json([{**attrs.asdict(one), "aliases": pointing[one.name, one.number]} for one in found])
        return
    if not found:
        print(f"the store {str(held.folder)!r} is empty", file=sys.stderr)
        return
    rows = [("VERSION", "ALIASES", "DIGEST", "SIZE", "ADDED", "BY", "WHY")]
    rows += [
        (
            str(one),
            ",".join(pointing[one.name, one.number]),
            one.digest[:12],
            size(one.bytes),
            when(one.created),
            one.who,
            one.why,
        )
        for one in found
    ]
    print_table(rows)


def show(
    version: Ref,
    *,
    lineage: Annotated[
        bool, Parameter(help="Show where it comes from: base, data, options, and what it was made of.", negative="")
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Show what is known of a version."""
    held = Store(store, registry=registry_with(plugin))
    found = held.resolve(version)
    if lineage:
        from adapterkit.lineage import trace

        tree = trace(str(found), store=held, registry=held.registry)
        print_json(tree.to_json()) if as_json else print(tree)
        return
    files = held.files(found)
    aliases = [name for name, target in held.aliases(found.name).items() if target.number == found.number]
    manifest = _manifest(held, found)
    if as_json:
        stored = {name: attrs.asdict(file) for name, file in files.files.items()}
        print_json({**attrs.asdict(found), "aliases": aliases, "files": stored, "adapter": manifest})
        return
    print(found)
    for label, text in _facts(found, aliases, manifest):
        print(f"  {label:<10}{one_line(text)}".rstrip())
    for file in files.files.values():
        print(f"  {'file':<10}{file.name}  {size(file.size)}{_pieces(file)}")


def remove(version: Ref, *, why: Why = "", who: Who = None, store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Take a version away; its files go with the next `store collect`, and its number is never given again."""
    gone = Store(store).remove(version, why=why, who=who)
    print_json(gone) if as_json else print(gone)


def _manifest(store: Store, version: Version) -> dict[str, Any]:
    from adapterkit.artifact.files import read_bytes
    from adapterkit.artifact.strict_json import parse_object

    values = parse_object(read_bytes(store.files(version), MANIFEST, MOST_JSON_BYTES), MANIFEST)
    return {name: values.get(name, "") for name in ("method", "plugin", "base", "evaluation")}


def _facts(version: Version, aliases: list[str], manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    base = manifest["base"] or {}
    said = f": {version.why}" if version.why else ""
    yield "method", f"{manifest['method']} ({manifest['plugin'] or 'of an unknown plugin'})"
    yield "base", " ".join(filter(None, [base.get("name"), base.get("revision"), base.get("fingerprint", "")[:12]]))
    yield "digest", version.digest
    yield "manifest", version.manifest
    yield "added", f"{when(version.created)} by {version.who}{said}"
    yield "origin", version.origin or "made here"
    yield "aliases", ", ".join(aliases) or "none"


def _pieces(file: StoredFile) -> str:
    return f" in {len(file.pieces)} pieces" if len(file.pieces) > 1 else ""
