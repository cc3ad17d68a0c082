"""Finds out where an adapter comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.adapter import Adapter
from adapterkit.artifact.files import read_bytes
from adapterkit.artifact.layout import MANIFEST, MOST_JSON_BYTES
from adapterkit.artifact.record import from_values
from adapterkit.artifact.strict_json import parse_object
from adapterkit.config import to_dict
from adapterkit.errors import UnknownNameError
from adapterkit.publishing import find_one
from adapterkit.registry import default_registry
from adapterkit.store import Store

from .record import Lineage

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from adapterkit.registry import Registry

__all__ = ["trace"]

MOST = 10_000
"""Adapters that are looked up at most: nobody has merged more, but a manifest may say what it likes."""
MOST_DEPTH = 64
"""Of adapters made of adapters; what is above is shown, and that it is."""


def trace(
    adapter: Adapter | str | os.PathLike[str], *, store: Store | None = None, registry: Registry | None = None
) -> Lineage:
    """Where an adapter comes from.

    Args:
        adapter: The adapter, its folder, or a reference of the store such as ``"cards@3"``.
        store: Where references and the adapters that it was made of are looked up, these by their digests. By default the usual
            one for what is named by a text, and none for an adapter itself, whose parents are then named only.
        registry: The plugins to use.

    Raises:
        ArtifactError: A folder is refused.
        SelectionError: Several adapters are named at once.
    """
    named = ""
    if not isinstance(adapter, Adapter):
        plugins = registry or default_registry()
        store = store or Store(registry=plugins)
        found = find_one(adapter, registry=plugins, store=store)
        named = str(store.resolve(adapter)) if isinstance(adapter, str) and adapter in store else ""
        adapter = found
    top = Lineage(
        digest=adapter.digest,
        method=adapter.method,
        reference=named or (_reference(store, adapter.digest) if store is not None else ""),
        config=to_dict(adapter.config),
        manifest=adapter.manifest,
        lineage=adapter.manifest.lineage,
    )
    return _Finder(store).with_parents(top)


class _Finder:
    """Looks up parents; each is followed once."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._seen: set[str] = set()

    def with_parents(
        self, one: Lineage, recipe: Mapping[str, Mapping[str, Any]] | None = None, depth: int = 0
    ) -> Lineage:
        if one.digest in self._seen:
            return attrs.evolve(one, repeated=True)
        self._seen.add(one.digest)
        parents = _parents(one.lineage)
        if len(self._seen) > MOST or depth == MOST_DEPTH:
            return attrs.evolve(one, cut=bool(parents))
        stages = recipe if recipe is not None else _stages(one.lineage)
        return attrs.evolve(one, parents=tuple(self._parent(said, stages, depth + 1) for said in parents))

    def _parent(self, said: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]], depth: int) -> Lineage:
        digest, weight = str(said["digest"]), said.get("weight")
        one = Lineage(
            digest=digest,
            method=str(said.get("method", "")),
            weight=float(weight) if isinstance(weight, (int, float)) else None,
        )
        found, stage = self._look_up(one), stages.get(digest)
        if found is not None:
            return self.with_parents(found, depth=depth)
        if stage is None:
            return one
        # an adapter that a recipe has made on its way and kept nowhere
        made = {"kind": "merge", "strategy": stage.get("merge_method", ""), "parents": stage.get("adapters", [])}
        made |= {name: stage[name] for name in ("rank", "seed", "space") if name in stage}
        return self.with_parents(attrs.evolve(one, stage=str(stage.get("name", "")), lineage=made), stages, depth)

    def _look_up(self, one: Lineage) -> Lineage | None:
        if self._store is None:
            return None
        try:
            version = self._store.resolve(f"sha256:{one.digest}")
            files = self._store.files(version)
            record = from_values(parse_object(read_bytes(files, MANIFEST, MOST_JSON_BYTES), MANIFEST))
        except UnknownNameError:
            return None
        return attrs.evolve(
            one,
            method=record.method,
            reference=str(version),
            config=record.config,
            manifest=record.manifest,
            lineage=record.manifest.lineage,
        )


def _reference(store: Store, digest: str) -> str:
    try:
        return str(store.resolve(f"sha256:{digest}"))
    except UnknownNameError:
        return ""


def _parents(lineage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a manifest says of the adapters that it was made of."""
    tuned = lineage.get("tuned")
    held = [tuned] if isinstance(tuned, dict) else lineage.get("parents")
    return (
        [one for one in held if isinstance(one, dict) and _is_digest(one.get("digest"))]
        if isinstance(held, list)
        else []
    )


def _stages(lineage: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The stages of a recipe by the digest of what each has made."""
    recipe = lineage.get("recipe")
    stages = [one for one in recipe if isinstance(one, dict)] if isinstance(recipe, list) else []
    by_name = {one["name"]: one for one in stages if isinstance(one.get("name"), str)}
    lists = [one["adapters"] for one in stages if isinstance(one.get("adapters"), list)]
    used = [part for one in lists for part in one if isinstance(part, dict) and _is_digest(part.get("digest"))]
    names = [(part["digest"], part.get("stage")) for part in used]
    return {digest: by_name[name] for digest, name in names if isinstance(name, str) and name in by_name}


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(character in "0123456789abcdef" for character in value)
