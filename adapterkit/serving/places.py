"""Where adapters lie, by digest, and how they are read again."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import attrs

from adapterkit.adapter import Adapter
from adapterkit.compose import Blend, blended_folders
from adapterkit.errors import ArtifactError, UnknownNameError
from adapterkit.publishing import find, is_address
from adapterkit.store import is_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from adapterkit.compose import Acting
    from adapterkit.registry import Registry
    from adapterkit.store import Store, Version

__all__ = ["Found", "Places", "Source"]

Source = "Acting | str | os.PathLike[str]"


@attrs.frozen
class Found:
    """What an operator has named.

    Attributes:
        acting: The adapter, or several at once.
        source: What was given, in words.
        reference: The store's reference, which may mean another version later; empty for what is always the same.
        folder: The folder of an adapter; empty for what comes from elsewhere.
        ways: How each of its adapters is read again.
    """

    acting: Acting
    source: str
    reference: str
    folder: str
    ways: dict[str, Callable[[], Adapter]]

    @property
    def parts(self) -> tuple[tuple[Adapter, float], ...]:
        """Adapters and weights."""
        return self.acting.parts if isinstance(self.acting, Blend) else ((self.acting, 1.0),)


class Places:
    """How adapters are read, by their digests.

    Args:
        library: The store in which references and digests are looked up.
        registry: The plugins.
    """

    def __init__(self, library: Store, registry: Registry) -> None:
        self._library, self._registry = library, registry
        self._ways: dict[str, Callable[[], Adapter]] = {}
        self._versions: dict[str, Version] = {}

    def find(self, source: Acting | str | os.PathLike[str]) -> Found:
        """What a source is; it is read once for that, and nothing is kept of it. Raises as :func:`adapterkit.publishing.find`."""
        if isinstance(source, (Adapter, Blend)):
            parts = source.adapters if isinstance(source, Blend) else (source,)
            return Found(source, "memory", "", "", {one.digest: _Itself(one) for one in parts})
        acting = find(source, registry=self._registry, store=self._library)
        named = str(source)
        if isinstance(acting, Blend):
            return Found(acting, named, "", "", self._ways_of_blend(named, acting))
        if is_address(named) or (is_reference(named) and not os.path.lexists(named)):
            way = partial(self._from_store, acting.digest)
            return Found(acting, named, "" if is_address(named) else named, "", {acting.digest: way})
        folder = os.path.realpath(named)
        return Found(acting, named, "", folder, {acting.digest: partial(self._from_folder, folder, acting.digest)})

    def keep(self, found: Found) -> None:
        """Have the adapters of a source be read from where they were found."""
        self._ways.update(found.ways)

    def values(self, digests: Iterable[str]) -> list[Adapter]:
        """Those adapters that were given as values."""
        ways = map(self._ways.get, digests)
        return [way.adapter for way in ways if isinstance(way, _Itself)]

    def forget(self, digests: Iterable[str]) -> None:
        """Let go of adapters that were given as values; what lies elsewhere can still be read."""
        for digest in digests:
            if isinstance(self._ways.get(digest), _Itself):
                del self._ways[digest]

    def resolve(self, store: Store, reference: str) -> Version:
        """The version that a reference means now; its adapter is read as this version's from here on."""
        version = store.resolve(reference)
        self._versions[version.digest] = version
        return version

    def read(self, digest: str) -> Adapter:
        """The adapter of a digest.

        Raises:
            ArtifactError: It is damaged, or is not the same any more.
            UnknownNameError: It is not there any more.
        """
        way = self._ways.get(digest)
        return way() if way is not None else self._from_store(digest)

    def _from_store(self, digest: str) -> Adapter:
        version = self._versions.get(digest)
        if version is not None:
            try:
                return self._library.load(version)
            except UnknownNameError:
                pass  # another version may be the same adapter
        return self._library.load(f"sha256:{digest}")

    def _from_folder(self, folder: str, digest: str) -> Adapter:
        adapter = Adapter.load(folder, registry=self._registry)
        if adapter.digest != digest:
            raise ArtifactError(
                f"{folder!r} was changed while it was served: it holds the adapter {adapter.digest:.12} now, and {digest:.12} was "
                "there; add it again"
            )
        return adapter

    def _ways_of_blend(self, file: str, blend: Blend) -> dict[str, Callable[[], Adapter]]:
        folders = map(os.path.realpath, blended_folders(file))
        return {
            one.digest: partial(self._from_folder, folder, one.digest)
            for one, folder in zip(blend.adapters, folders, strict=True)
        }


@attrs.frozen
class _Itself:
    adapter: Adapter

    def __call__(self) -> Adapter:
        return self.adapter
