"""What is said of a name that may be asked for."""

from __future__ import annotations

import datetime as dt
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from adapterkit.store import Version

__all__ = ["Served", "of_store", "seconds_of"]


@attrs.frozen(kw_only=True)
class Served:
    """A name that may be asked for.

    Attributes:
        name: The name.
        digest: The adapter that it means now, or the blend; empty where that is gone.
        parts: The digests of a blend's adapters; empty where it is one adapter.
        method: What made it; empty for several at once, and as long as it is not known.
        source: Where it comes from: ``"store"``, ``"memory"``, or what the operator gave.
        aliases: What its aliases point at, such as ``{"production": "cards@2"}``.
        versions: The numbers of its versions that are in the store.
        digests: The adapters of these, in the same order.
        bytes: Its size, of the files in a store, else of its tensors.
        created: When it was added, in seconds since 1970.
    """

    name: str
    digest: str
    parts: tuple[str, ...] = ()
    method: str = ""
    source: str = "store"
    aliases: Mapping[str, str] = attrs.field(factory=lambda: MappingProxyType({}))
    versions: tuple[int, ...] = ()
    digests: tuple[str, ...] = ()
    bytes: int = 0
    created: int = 0


def of_store(
    versions: Iterable[Version], aliases: Mapping[str, Version], methods: Mapping[str, str]
) -> dict[str, Served]:
    """The names of a store.

    Args:
        versions: Those that are present, by name and number.
        aliases: Where each points, by ``cards@production``.
        methods: What is known of what made an adapter, by digest.
    """
    kept: dict[str, list[Version]] = {}
    pointing: dict[str, dict[str, str]] = {}
    for version in versions:
        kept.setdefault(version.name, []).append(version)
    for text, version in aliases.items():
        pointing.setdefault(version.name, {})[text.partition("@")[2]] = str(version)
    return {
        name: Served(
            name=name,
            digest=version.digest,
            method=methods.get(version.digest, ""),
            aliases=MappingProxyType(pointing.get(name, {})),
            versions=tuple(one.number for one in kept[name]),
            digests=tuple(one.digest for one in kept[name]),
            bytes=version.bytes,
            created=seconds_of(version.created),
        )
        for name, version in ((name, those[-1]) for name, those in kept.items())
    }


def seconds_of(moment: str) -> int:
    """A moment in ISO 8601 as whole seconds since 1970."""
    return int(dt.datetime.fromisoformat(moment).timestamp())
