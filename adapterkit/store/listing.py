"""``store.json``: what an export holds, for the store that imports it and for people who look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.layout import KEPT, MANIFEST
from adapterkit.artifact.strict_json import parse_object
from adapterkit.config import from_dict, to_dict
from adapterkit.errors import ArtifactError, ConfigError

from .names import check_alias, check_name, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .values import Entry, Version

__all__ = ["LISTING", "MOST_LISTING_BYTES", "MOST_VERSIONS", "ListedAlias", "ListedFile", "ListedVersion", "Listing"]

LISTING = "store.json"
SCHEMA = 1
MOST_LISTING_BYTES = 64 << 20
"""Ten thousand versions take about a sixth of this."""
MOST_VERSIONS = 10_000
MOST_NUMBER = 10**15
"""What no reference could say; an import keeps only numbers that are near to those here."""


@attrs.frozen
class ListedFile:
    """A file of a listed version."""

    sha256: str
    bytes: int


@attrs.frozen(kw_only=True)
class ListedVersion:
    """A version of an export, in the folder ``<name>/<number>``; ``files`` is what each must be."""

    name: str
    number: int
    digest: str
    files: dict[str, dict[str, Any]]
    created: str = ""
    who: str = ""
    why: str = ""
    origin: str = ""

    @property
    def key(self) -> str:
        """What it is called there."""
        return f"{self.name}@{self.number}"

    @property
    def folder(self) -> str:
        """Its folder in the export."""
        return f"{self.name}/{self.number}"

    @property
    def records(self) -> dict[str, ListedFile]:
        """Its files by name."""
        return {name: ListedFile(file["sha256"], file["bytes"]) for name, file in self.files.items()}


@attrs.frozen(kw_only=True)
class ListedAlias:
    """An alias of an export."""

    name: str
    alias: str
    number: int
    protected: bool = False


@attrs.frozen(kw_only=True)
class Listing:
    """The content of ``store.json``; the journal is there to be read, and is not imported."""

    versions: tuple[ListedVersion, ...]
    aliases: tuple[ListedAlias, ...]
    journal: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        versions: Mapping[Version, Mapping[str, ListedFile]],
        aliases: Iterable[ListedAlias],
        journal: Iterable[Entry],
    ) -> Listing:
        """Of what is exported."""
        listed = [
            ListedVersion(
                **{
                    name: getattr(version, name)
                    for name in ("name", "number", "digest", "created", "who", "why", "origin")
                },
                files={name: to_dict(record) for name, record in sorted(files.items())},
            )
            for version, files in versions.items()
        ]
        return cls(versions=tuple(listed), aliases=tuple(aliases), journal=tuple(to_dict(entry) for entry in journal))

    @classmethod
    def parse(cls, data: bytes) -> Listing:
        """Of the bytes of a stranger's file.

        Raises:
            ArtifactError: It is not written as one is, or names what no store would.
        """
        values = parse_object(data, LISTING)
        if values.get("schema") != SCHEMA:
            schema = values.get("schema")
            raise ArtifactError(f"{LISTING} has schema {schema!r:.50}; {SCHEMA} is known here: update adapterkit")
        if set(values) != {"schema", "versions", "aliases", "journal"}:
            raise ArtifactError(f"{LISTING} has the fields {', '.join(sorted(values))!s:.200}")
        try:
            versions = tuple(from_dict(ListedVersion, one, what="versions") for one in _objects(values, "versions"))
            aliases = tuple(from_dict(ListedAlias, one, what="aliases") for one in _objects(values, "aliases"))
            _check(versions, aliases)
        except ConfigError as error:
            raise ArtifactError(f"{LISTING}: {error}") from None
        return cls(versions=versions, aliases=aliases)

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "schema": SCHEMA,
            "versions": [to_dict(one) for one in self.versions],
            "aliases": [to_dict(one) for one in self.aliases],
            "journal": list(self.journal),
        }


def _objects(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = values[name]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ArtifactError(f"{LISTING}: {name} must be a list of objects")
    if len(found) > MOST_VERSIONS:
        raise ArtifactError(f"{LISTING}: it has {len(found):,} {name}; at most {MOST_VERSIONS:,} are read")
    return found


def _check(versions: tuple[ListedVersion, ...], aliases: tuple[ListedAlias, ...]) -> None:
    known = {(one.name, one.number) for one in versions}
    if len(known) != len(versions):
        raise ArtifactError(f"{LISTING}: a version is listed twice")
    for one in versions:
        check_name(one.name)
        check_text(why=one.why)
        if not 0 < one.number < MOST_NUMBER:
            raise ArtifactError(f"{LISTING}: {one.name!r} has the number {one.number}")
        if not {MANIFEST} <= set(one.files) <= set(KEPT):
            odd = min(set(one.files) - set(KEPT), default="")
            said = f"{odd!r:.100} is no file of an adapter" if odd else f"it lists no {MANIFEST}"
            raise ArtifactError(f"{LISTING}: {one.key}: {said}")
        for file in one.files.values():
            from_dict(ListedFile, file, what="files")
    for alias in aliases:
        check_alias(alias.alias)
        if (alias.name, alias.number) not in known:
            raise ArtifactError(f"{LISTING}: alias {alias.alias!r} points at a version that is not there")
    if len({(one.name, one.alias) for one in aliases}) != len(aliases):
        raise ArtifactError(f"{LISTING}: an alias is listed twice")
