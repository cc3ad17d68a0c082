"""What an exporter is given: an adapter, and the same as the plainest LoRA there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.adapter import Adapter
from adapterkit.checkpoint import config_of, model_without_weights
from adapterkit.effects import LowRank
from adapterkit.errors import ConfigError, SelectionError
from adapterkit.extracting.expressing import expressed
from adapterkit.sites import find_sites

from .refusing import updates_of

if TYPE_CHECKING:
    from pathlib import Path

    from adapterkit.registry import Registry

__all__ = ["Export"]


@attrs.frozen(eq=False, slots=False)
class Export:
    """One export.

    Attributes:
        adapter: What is exported; of a Stack or a Blend, one adapter that does the same.
        parents: The adapters that it was made of, with their weights; the adapter alone, where it is one.
        folder: An empty folder for the files.
        registry: Where methods are found.
        base: The base's folder, for forms that need to know its architecture; only its configuration is read.
    """

    adapter: Adapter
    parents: tuple[tuple[Adapter, float], ...]
    folder: Path
    registry: Registry
    base: Path | None = None

    def factors(self) -> dict[str, LowRank]:
        """The update of each linear layer, by site: all of one rank, the scale in ``up`` and 1 beside it, in float32.

        Ranks are made equal by zeros, which change nothing.

        Raises:
            SelectionError: It does something else, or at other places; names both.
        """
        for one, _ in self.parents:
            updates_of(self.registry, one)  # of several, the one that does more is named
        found = {site: LowRank.stacked(here) for site, here in updates_of(self.registry, self.adapter).items()}
        if not found:
            raise SelectionError("the adapter does nothing: there is nothing to export")
        rank = max(one.rank for one in found.values())
        return {site: _padded(one, rank) for site, one in found.items()}

    def plain(self) -> Adapter:
        """The same adapter as plain LoRA: one rank, alpha equal to it, no patterns, nothing but two factors at each layer.

        Raises:
            SelectionError: As :meth:`factors`.
            TargetError: The base that was given has no such layer.
        """
        effects = {site: (one,) for site, one in self.factors().items()}
        sites = None if self.base is None else find_sites(model_without_weights(self.base_config()))
        method, config, tensors = expressed(self.registry, effects, sites)
        parents = [{"digest": one.digest, "method": one.method, "weight": weight} for one, weight in self.parents]
        lineage = {"kind": "export", "parents": parents}
        manifest = attrs.evolve(self.adapter.manifest, plugin=self.registry.provider(method), lineage=lineage)
        return Adapter(method.name, config, tensors, manifest)

    def base_config(self) -> Any:
        """The base's transformers configuration.

        Raises:
            ConfigError: No base was given.
            BaseLoadError: The folder has none.
        """
        if self.base is None:
            raise ConfigError("options of export do not fit", ["base: this form needs the folder of the base"])
        return config_of(self.base)


def _padded(update: LowRank, rank: int) -> LowRank:
    more = rank - update.rank
    pad = torch.nn.functional.pad
    return LowRank(pad(update.down, (0, 0, 0, more)), pad(update.up, (0, more)), 1.0)
