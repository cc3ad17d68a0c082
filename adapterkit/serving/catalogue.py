"""What may be asked for by name: what the operator has named, and what is in the store."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.fit import check_base
from adapterkit.artifact.manifest import json_digest
from adapterkit.compose import Blend
from adapterkit.config import to_dict
from adapterkit.errors import ArtifactError, ConfigError, ConflictError, SelectionError, UnknownNameError
from adapterkit.store import UNSET, Store, is_reference
from adapterkit.store.names import check_name
from adapterkit.trust import current_policy

from .asking import Choice
from .naming import SHOWN, asked_of, counted_as, short
from .places import Places
from .served import Served, of_store, seconds_of
from .withdrawn import Withdrawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.adapter import Adapter
    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.store import Version

    from .places import Found

__all__ = ["Catalogue", "Served"]

Parts = tuple[tuple[str, float], ...]


@attrs.frozen(kw_only=True)
class _Named:
    """What the operator has given a name to."""

    parts: Parts
    reference: str
    served: Served


class Catalogue:
    """Names, and the adapters that they mean. A name is never a path or an address. Usable from several threads.

    Args:
        base: What the adapters are checked against.
        adapters: Names that the operator gives to adapters, blends, folders, files of blends, references of a store or addresses. A
            reference is followed: where its alias moves, the name means the new version.
        store: Every name in it may be asked for too: ``cards``, ``cards@3``, ``cards@production``, or by digest.
        base_name: What asks for the base alone; by default the base's Hub id, or the last part of its path.

    Attributes:
        base_name: What asks for the base alone.
        store: The store whose names are served; None without one.

    Raises:
        ArtifactError: An adapter is refused, or does not fit the base.
        ConfigError: A name does not fit.
    """

    def __init__(
        self,
        base: Base,
        adapters: Mapping[str, Acting | str | os.PathLike[str]] | None = None,
        *,
        store: Store | None = None,
        base_name: str = "",
    ) -> None:
        self.base_name = base_name or _name_of(base)
        self.store = store
        self._base = base
        library = store or Store(registry=base.registry)
        self._library = library
        self._places = Places(library, base.registry)
        self._withdrawn = Withdrawn(library.folder)
        self._given: dict[str, _Named] = {}
        self._methods: dict[str, str] = {}
        self._fitting: set[str] = set()
        self._gone: set[str] = set()
        self._changing = threading.Lock()
        for name, source in (adapters or {}).items():
            self._check_free(name)
            self._give(name, self._find(source))

    # -- for each request

    def resolve(self, model: str) -> Choice:
        """The adapters that a text means now, such as ``cards``, ``cards@3+tone`` or ``cards*0.7+tone*-0.3``; none are read.

        Raises:
            SelectionError: It is not written so, names an adapter twice, or more than 16.
            UnknownNameError: Nothing of that name is served.
        """
        if model in ("", self.base_name):
            return Choice(model)
        named = self._given.get(model)
        if named is not None:
            return Choice(model, self._parts_of(named), model)
        names: set[str] = set()
        parts: dict[str, float] = {}
        for asked, weight in asked_of(model):
            name, found = self._meant(asked)
            names.add(name)
            for digest, own in found:
                if digest in parts:
                    raise SelectionError(f"{short(model)} names the adapter {digest:.12} twice; give it one weight")
                parts[digest] = weight * own
                if not math.isfinite(parts[digest]):
                    raise SelectionError(f"{short(model)} has a weight that is no finite number")
        return Choice(model, tuple(parts.items()), counted_as(names))

    def fetch(self, digest: str) -> Adapter:
        """Read an adapter from where it lies, through the trusted loader; one whose name was removed meanwhile too.

        Raises:
            ArtifactError: It is damaged, or was changed since it was named.
            UnknownNameError: It is not there any more.
        """
        adapter = self._places.read(digest)
        self._methods[digest] = adapter.method
        return adapter

    # -- what there is

    def listed(self) -> list[Served]:
        """All names, in order; of what is in the store, the index alone is read."""
        found = {name: self._told(named) for name, named in self._given.copy().items()}
        if self.store is not None:
            away = self._withdrawn.names()
            for name, one in of_store(self.store.versions(), self.store.aliases(), self._methods).items():
                if name not in found and name not in away:
                    found[name] = one
        return [found[name] for name in sorted(found)]

    def served(self, name: str) -> Served:
        """One of them.

        Raises:
            UnknownNameError: There is none such.
        """
        named = self._given.get(name)
        if named is not None:
            return self._told(named)
        if self.store is None or not self._is_stored(name):
            raise self._unknown(name)
        found = of_store(self.store.versions(name), self.store.aliases(name), self._methods)
        if name not in found:
            raise self._unknown(name)
        return found[name]

    def __contains__(self, name: object) -> bool:
        """Whether it is a name; a reference such as ``cards@3`` is none."""
        return name in self._given or (self.store is not None and self._is_stored(name))

    def is_given(self, name: str) -> bool:
        """Whether a name was given here, and is not of the store: another catalogue of the same store need not have it."""
        return name in self._given

    def _is_stored(self, name: object) -> bool:
        plain = isinstance(name, str) and not {"@", ":"}.intersection(name)
        return plain and name in self._needed() and name not in self._withdrawn

    # -- changes

    def add(
        self, name: str, source: Acting | str | os.PathLike[str], *, who: str = "", replace: bool = False
    ) -> Served:
        """Have a name mean an adapter from now on; requests under way keep theirs.

        With a store, the adapter becomes the newest version of the name there, and is served after a restart too.

        Args:
            name: The name.
            source: An adapter, a folder, a reference of the store or an address; without a store also a blend, or a blend's file.
            who: Who adds it, for the store's journal.
            replace: Whether the name may be in use already.

        Raises:
            ArtifactError: It is refused, or does not fit the base. Nothing was changed.
            ConfigError: The name does not fit.
            ConflictError: The name is in use.
            SelectionError: A blend cannot be kept in a store.
            StoreError: The store cannot be written.
        """
        self._check_free(name)
        with self._changing:
            if not replace and name in self:
                raise ConflictError(f"the name {name!r} is in use; give another one, or replace it")
            found, before = self._find(source), self._named()
            if self.store is None:
                served = self._give(name, found)
            else:
                self._keep(self.store, name, found, who)
                self._withdrawn.discard(name)
                self._given.pop(name, None)
                served = self.served(name)
            self._forget(before)
            return served

    def remove(self, name: str, *, who: str = "") -> None:
        """Have a name mean nothing from now on; nothing is deleted, and requests under way go on. ``add`` puts a name back.

        Raises:
            UnknownNameError: There is none such.
        """
        with self._changing:
            if name not in self:
                raise self._unknown(name)
            before = self._named()
            if self.store is not None and name in self.store:
                self._withdrawn.add(name, who)
            self._given.pop(name, None)
            self._forget(before)

    def gone(self) -> set[str]:
        """The digests of adapters that have lost their last name since this was asked last."""
        with self._changing:
            gone, self._gone = self._gone, set()
        return gone

    def values(self, choice: Choice) -> list[Adapter]:
        """Those of its adapters that lie nowhere but in memory: a request has to keep them, as their names may go."""
        return self._places.values(digest for digest, _ in choice.parts)

    def promote(
        self, name: str, version: int | str, alias: str, *, expect: Any = UNSET, who: str = "", why: str = ""
    ) -> Version:
        """Let an alias point at a version of a name, for new requests; raises as :meth:`adapterkit.Store.promote`."""
        return self._needed().promote(f"{name}@{version}", alias, expect=expect, why=why, who=who or None)

    def rollback(self, alias: str, *, expect: Any = UNSET, who: str = "", why: str = "") -> Version:
        """Let an alias, given as ``cards@production``, point where it did; raises as :meth:`adapterkit.Store.rollback`."""
        return self._needed().rollback(alias, expect=expect, why=why, who=who or None)

    def _forget(self, before: set[str]) -> None:
        """Forget what had a name before, and has none now."""
        named = self._named()
        self._places.forget(before - named)
        self._gone = (self._gone | before) - named

    def _named(self) -> set[str]:
        """The digests of all that has a name."""
        given = {digest for named in self._given.values() for digest, _ in named.parts}
        if self.store is None:
            return given
        away = self._withdrawn.names()
        return given | {one.digest for one in self.store.versions() if one.name not in away}

    # -- what names mean

    def _parts_of(self, named: _Named) -> Parts:
        if not named.reference:
            return named.parts
        return ((self._places.resolve(self._library, named.reference).digest, 1.0),)

    def _meant(self, asked: str) -> tuple[str, Parts]:
        """The name that traffic is counted under, and digests with weights."""
        named = self._given.get(asked)
        if named is not None:
            return asked, self._parts_of(named)
        if self.store is None or not is_reference(asked):
            raise self._unknown(asked)
        if not asked.startswith("sha256:") and asked.partition("@")[0] not in self.store:
            raise self._unknown(asked)
        version = self._places.resolve(self.store, asked)
        away = self._withdrawn.names()
        if version.name in away:
            same = self.store.versions() if asked.startswith("sha256:") else ()
            name = next((one.name for one in same if one.digest == version.digest and one.name not in away), "")
            if not name:
                raise UnknownNameError("adapter", asked, [], reason="it is out of service")
            return name, ((version.digest, 1.0),)
        return version.name, ((version.digest, 1.0),)

    def _unknown(self, name: str) -> UnknownNameError:
        if len(name) > SHOWN:
            return UnknownNameError("adapter", f"{name[:SHOWN]}…", [], reason="no adapter has so long a name")
        plain = name.partition("@")[0]
        if plain in self._given and plain != name:
            return UnknownNameError(
                "adapter", name, [], reason=f"{plain!r} was named here, and has no versions; a store's have"
            )
        known = self.store.names() if self.store is not None else []
        away = self._withdrawn.names() if self.store is not None else {}
        return UnknownNameError("adapter", name, {*self._given, *known} - away.keys())

    # -- what sources are

    def _find(self, source: Acting | str | os.PathLike[str]) -> Found:
        """What a source is, seen to fit the base."""
        found = self._places.find(source)
        for adapter, _ in found.parts:
            kind = _kind_of(adapter)
            if kind not in self._fitting or adapter.copies:
                self._base.check(adapter)
                self._fitting.add(kind)
            else:  # of its base alone may it be another than those that fit
                check_base(adapter.manifest, self._base.reference.fingerprint)
        return found

    def _give(self, name: str, found: Found) -> Served:
        tensors = [tensor for adapter, _ in found.parts for tensor in adapter.tensors.values()]
        served = Served(
            name=name,
            digest=found.acting.digest,
            parts=tuple(one.digest for one, _ in found.parts) if isinstance(found.acting, Blend) else (),
            method="" if isinstance(found.acting, Blend) else found.acting.method,
            source=found.source,
            bytes=sum(tensor.nbytes for tensor in tensors),
            created=int(time.time()),
        )
        parts = tuple((adapter.digest, weight) for adapter, weight in found.parts)
        self._methods |= {adapter.digest: adapter.method for adapter, _ in found.parts}
        self._places.keep(found)
        self._given[name] = _Named(parts=parts, reference=found.reference, served=served)
        return served

    def _keep(self, store: Store, name: str, found: Found, who: str) -> None:
        """Put an adapter into the store, with its signature and where it comes from."""
        adapter = found.acting
        if isinstance(adapter, Blend):
            raise SelectionError(
                "a store keeps adapters, and no blends of them: add each, and ask for cards*0.7+tone*0.3"
            )
        said: dict[str, Any] = {"why": "added while serving", "who": who or None}
        version = None if found.folder or found.source == "memory" else store.resolve(f"sha256:{adapter.digest}")
        if found.folder and not adapter.copies:
            added = store.add(found.folder, name, **said)
        elif version is not None and version.origin:
            with tempfile.TemporaryDirectory(prefix="adapterkit-") as folder:
                there = store.checkout(version, Path(folder) / "adapter")
                added = store.add(there, name, origin=version.origin, **said)
        else:
            added = store.add(adapter, name, origin=found.folder if current_policy() else "", **said)
        self._methods[added.digest] = adapter.method
        if added.digest != adapter.digest:
            store.remove(added, why="it was changed while it was added", who=who or None)
            raise ArtifactError(
                f"{found.source!r} was changed while it was added; nothing was kept of it, add it again"
            )

    def _check_free(self, name: str) -> None:
        check_name(name)
        if name == self.base_name:
            raise ConfigError(f"name={name!r} does not fit", ["it asks for the base alone; give another one"])

    def _needed(self) -> Store:
        if self.store is None:
            raise SelectionError(
                "aliases are a store's, and none is served: give one, as in Engine(base, store=Store())"
            )
        return self.store

    # -- what is said of names

    def _told(self, named: _Named) -> Served:
        if not named.reference:
            return named.served
        try:
            version = self._library.resolve(named.reference)
        except UnknownNameError:
            return attrs.evolve(named.served, digest="")
        return attrs.evolve(
            named.served, digest=version.digest, bytes=version.bytes, created=seconds_of(version.created)
        )


def _kind_of(adapter: Adapter) -> str:
    """What two adapters have in common of which both or neither have the tensors that a base asks for."""
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()}
    return json_digest([adapter.method, to_dict(adapter.config), shapes])


def _name_of(base: Base) -> str:
    name = base.source.name
    return Path(name).resolve().name if os.path.isdir(name) else name  # noqa: PTH112 - it raises nothing, whatever the name
