"""What is done with published versions: list, tag, roll back, delete."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.adapter import Adapter
from adapterkit.artifact.layout import CARD, OURS
from adapterkit.errors import ConfigError
from adapterkit.registry import Registry, default_registry
from adapterkit.trust import read_trusted
from adapterkit.trust.reading import MOST_BYTES

from .address import Address, check_tag_name, parse_address
from .pulling import check_sizes, settled
from .sending import Sent, send

if TYPE_CHECKING:
    from adapterkit.contracts import Repository, Revision

__all__ = ["delete", "revisions", "rollback", "tag", "untag"]


def revisions(url: str, *, registry: Registry | None = None) -> list[Revision]:
    """Every version at an address, the newest first; empty where a repository holds nothing yet.

    Raises:
        RemoteError: It cannot be reached.
        UnknownNameError: There is none, or none that you may see.
    """
    repository = _open(parse_address(url), registry)
    found = repository.revisions()
    if not found:
        repository.resolve()  # says why, where there is no repository
    return found


def tag(url: str, name: str, *, registry: Registry | None = None) -> str:
    """Give a published version a name that never moves, and return the version's id.

    Args:
        url: The version: ``"hf://org/cards@<commit>"``; the newest without a revision.
        name: Such as ``"v2"``.
        registry: The plugins to use.

    Raises:
        ConflictError: Another version has this name.
    """
    address = parse_address(url)
    check_tag_name(name)
    repository = _open(address, registry)
    revision = repository.resolve(address.revision)
    repository.tag(name, revision)
    return revision


def untag(url: str, *, registry: Registry | None = None) -> None:
    """Take a name from a published version, such as ``"hf://org/cards@v2"``; the version stays."""
    address = _with_revision(url)
    _open(address, registry).untag(address.revision)


def rollback(url: str, *, message: str = "", registry: Registry | None = None) -> Sent:
    """Publish an earlier version once more, as the newest: history only grows.

    Args:
        url: The version to go back to: ``"hf://org/cards@v1"``.
        message: What is said of the new version.
        registry: The plugins to use.

    Raises:
        ArtifactError: What is there is no adapter that could be loaded, or the trust policy does not let it in.
        ConflictError: Somebody else published meanwhile.
    """
    address = settled(_with_revision(url))
    plugins = registry or default_registry()
    repository = address.open(plugins)
    revision = repository.resolve(address.revision)
    sizes = repository.sizes(revision, OURS)
    check_sizes(address, {name: size for name, size in sizes.items() if name in MOST_BYTES})
    with tempfile.TemporaryDirectory(prefix="adapterkit-") as folder:
        repository.fetch(revision, sorted(sizes), Path(folder))
        adapter = Adapter(*read_trusted(folder, plugins, origin=str(address.at(revision))))
        files = {name: Path(folder) / name for name in sorted(sizes)}
        card = files[CARD].read_text(encoding="utf-8", errors="replace") if CARD in files else ""
        plugins.ask("adapterkit_before_publish", adapter=adapter, url=address.url, card=card)
        said = message or f"back to {address.revision}"
        return send(repository, address.url, files, message=said, replaces=OURS)


def delete(url: str, *, registry: Registry | None = None) -> None:
    """Delete a repository with every version of it.

    Raises:
        UnknownNameError: There is none that you may delete.
    """
    address = parse_address(url)
    if address.revision:
        raise ConfigError(
            f"{url!r} is one version", [f"what is deleted is a repository: {address.url}; a name goes with untag"]
        )
    _open(address, registry).delete()


def _with_revision(url: str) -> Address:
    address = parse_address(url)
    if not address.revision:
        raise ConfigError(f"{url!r} names no version", [f"write {url}@NAME"])
    return address


def _open(address: Address, registry: Registry | None) -> Repository:
    return address.open(registry or default_registry())
