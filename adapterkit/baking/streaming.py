"""Bakes from a folder to a folder: one tensor of the base is in memory at a time, or those of one layer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from adapterkit.artifact.fit import check_base
from adapterkit.artifact.manifest import BaseReference
from adapterkit.compose import Blend
from adapterkit.errors import SelectionError
from adapterkit.fingerprint import same_base

from .casting import cast, dtype_name, summed
from .layout import NotPlainError
from .report import Measure
from .shards import FLOATS, pieces, plan_shards, write_index, write_shard
from .summing import BLOCK, changed_parameters
from .updates import Updates, tied_sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch
    from torch import Tensor

    from adapterkit.artifact.manifest import Manifest
    from adapterkit.compose import Acting
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

    from .layout import Layout
    from .shards import Shard, Stored
    from .updates import Parts

__all__ = ["Streaming"]


class Streaming:
    """A base on disk, and what is to be added to it.

    Args:
        registry: The plugins.
        layout: The base.
        acting: An adapter, a stack or a blend.
        name: What the base is called.
        commit: Its Hub commit, if it has one.
        dtype: What to cast its weights to; None keeps each as it is.

    Raises:
        ArtifactError: An adapter does not fit the base.
        NotPlainError: The weights have to be loaded.
        SelectionError: An adapter cannot be said as changes of weights.
    """

    whole = ""

    def __init__(
        self, registry: Registry, layout: Layout, acting: Acting, *, name: str, commit: str, dtype: torch.dtype | None
    ) -> None:
        self._layout, self._dtype = layout, dtype
        self.base = BaseReference(name=name, revision=commit, fingerprint=layout.fingerprint())
        adapters = acting.adapters if isinstance(acting, Blend) else (acting,)
        for one in adapters:
            self._check_base(one.manifest)
        copied = {copy.weight for one in adapters for copy in one.copies.values()} & set(layout.keys)
        weights = {one: layout.checkpoint.read(layout.keys[one]) for one in sorted(copied)}
        self.updates = Updates(registry, acting, layout.sites, weights)
        if self.updates.reads_all_weights:
            raise NotPlainError(f"method {self.updates.reads_all_weights!r} makes its layers of the weights")
        self._tensors = {key: one.cast(dtype) for key, one in layout.stored.items() if key not in layout.left_out}
        self._owners = self._find_owners()
        self._held: tuple[Site, Parts] | None = None
        self._hold = contextlib.ExitStack()

    @property
    def size(self) -> int:
        """How many bytes of tensors are to be written."""
        return sum(one.size for one in self._tensors.values())

    @property
    def dtype(self) -> str:
        """What most of the changed weights are stored in."""
        names = [self._tensors[key].dtype for key in self._owners]
        return dtype_name(FLOATS[max(sorted(set(names)), key=names.count)])

    def write(self, folder: Path, most: int, tell: Callable[[int], None]) -> dict[str, Measure]:
        """Write all tensors in files of at most ``most`` bytes.

        Returns:
            What became of each parameter that was changed.

        Raises:
            SelectionError: Layers that share a weight are not changed alike.
        """
        measures: dict[str, Measure] = {}
        with self._hold:
            for group in tied_sites(self._layout.sites):
                if self.updates.touched & {site.name for site in group}:
                    with self._layout.weights_of(group):
                        self.updates.check_tied(group)
            shards = plan_shards(self._tensors, most)
            for shard in shards:
                write_shard(folder / shard.name, shard, self._numbers(shard, measures, tell))
            write_index(folder, shards)
        return measures

    def _check_base(self, manifest: Manifest) -> None:
        """Refuse an adapter of another base; where the base was loaded in another type, its numbers may have been rounded twice."""
        if self._dtype is None or not same_base(manifest.base.fingerprint, self._layout.fingerprint(self._dtype)):
            check_base(manifest, self.base.fingerprint)

    def _find_owners(self) -> dict[str, tuple[Site, str]]:
        """The site and the name there of each stored tensor that adapters may change.

        Raises:
            SelectionError: One is stored in something that is not computed with.
        """
        owners: dict[str, tuple[Site, str]] = {}
        for site in self._layout.sites:
            for name in site.parameters if site.name in self.updates.touched else ():
                key = self._layout.keys.get(f"{site.name}.{name}")
                if key is None:
                    raise NotPlainError(f"'{site.name}.{name}' is stored in other pieces than the model has")
                owners.setdefault(key, (site, name))
                if self._layout.stored[key].dtype not in FLOATS:
                    raise SelectionError(
                        f"{key!r} is stored in {self._layout.stored[key].dtype}: bake onto the model that it was made of"
                    )
        return owners

    def _numbers(self, shard: Shard, measures: dict[str, Measure], tell: Callable[[int], None]) -> Iterator[Tensor]:
        for key, stored in shard.tensors.items():
            for piece in self._new(key, stored, measures):
                yield piece
                tell(piece.nbytes)

    def _new(self, key: str, stored: Stored, measures: dict[str, Measure]) -> Iterator[Tensor]:
        """The numbers of one tensor, in pieces."""
        if key in self._owners:
            site, name = self._owners[key]
            parts = self._at(site)
            if name in changed_parameters(site, parts):
                measure = measures[f"{site.name}.{name}"] = Measure()
                return summed(site, name, parts, FLOATS[stored.dtype], measure)
        tensor = self._layout.checkpoint.read(key)
        if stored.dtype == self._layout.stored[key].dtype:
            return pieces(tensor, BLOCK)
        return (cast(piece, FLOATS[stored.dtype], key) for piece in pieces(tensor, BLOCK))

    def _at(self, site: Site) -> Parts:
        """What adapters do at a site, whose weights are there until another one is asked for."""
        if self._held is None or self._held[0] is not site:
            self._hold.close()
            self._held = None
            self._hold.enter_context(self._layout.weights_of([site]))
            self._held = site, self.updates.at(site)
        return self._held[1]
