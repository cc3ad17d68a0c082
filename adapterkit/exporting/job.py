"""What an exporter is given: an adapter, and the same as the plainest LoRA there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.adapter import Adapter
from adapterkit.effects import LowRank
from adapterkit.errors import ConfigError, SelectionError
from adapterkit.extracting.checkpoint import config_of, model_without_weights
from adapterkit.extracting.expressing import expressed
from adapterkit.resident import effects_of
from adapterkit.sites import INPUT, find_sites, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from adapterkit.effects import Effect
    from adapterkit.registry import Registry

__all__ = ["Export"]


@attrs.frozen(eq=False, slots=False)
class Export:
    """One export.

    Attributes:
        adapter: What is exported.
        folder: An empty folder for the files.
        registry: Where methods are found.
        base: The base's folder, for forms that need to know its architecture; only its configuration is read.
    """

    adapter: Adapter
    folder: Path
    registry: Registry
    base: Path | None = None

    def factors(self) -> dict[str, LowRank]:
        """The update of each linear layer, by site: all of one rank, the scale in ``up`` and 1 beside it, in float32.

        Ranks are made equal by zeros, which change nothing.

        Raises:
            SelectionError: It does something else, or at other places; names both.
        """
        effects = effects_of(self.registry, self.adapter)
        found = {site: _joined(site, here) for site, here in sorted(effects.items()) if here}
        if not found:
            raise SelectionError("the adapter does nothing: there is nothing to export")
        rank = max(one.rank for one in found.values())
        return {site: _padded(one, rank) for site, one in found.items()}

    def plain(self) -> Adapter:
        """The same adapter as plain LoRA: one rank, alpha equal to it, no patterns, nothing but two factors at each layer.

        Raises:
            SelectionError: As :meth:`factors`.
        """
        factors = self.factors()
        method, config, tensors = expressed(self.registry, {site: (one,) for site, one in factors.items()})
        if self.base is not None:
            config = attrs.evolve(config, target_modules=self._target_modules(factors))
        lineage = {"kind": "export", "parents": [{"digest": self.adapter.digest, "method": self.adapter.method}]}
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

    def _target_modules(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        """The shortest names that mean these sites of the base and no others."""
        sites = find_sites(model_without_weights(self.base_config()))
        known = {site.name: site for site in sites}
        strange = sorted(set(names) - set(known))
        if strange:
            raise SelectionError(
                f"the base in {str(self.base)!r} has no layer {strange[0]!r}: the adapter is another's"
            )
        return shorten([known[name] for name in names], [site for site in sites if site.name != INPUT])


def _joined(site: str, effects: Sequence[Effect]) -> LowRank:
    """One update, with its scale in it.

    Raises:
        SelectionError: There is something else at the site.
    """
    for one in effects:
        if not isinstance(one, LowRank):
            raise SelectionError(
                f"the adapter has a {type(one).__name__} at {site!r}, which plain LoRA cannot hold; bake it into a model, or "
                "bring whole changes to a low rank with extract"
            )
        if one.embedding:
            raise SelectionError(f"the adapter changes the embedding {site!r}, which readers of plain LoRA do not take")
    parts = [one for one in effects if isinstance(one, LowRank)]
    up = torch.cat([one.up.float() * one.scale for one in parts], dim=1)
    return LowRank(torch.cat([one.down.float() for one in parts]), up, 1.0)


def _padded(update: LowRank, rank: int) -> LowRank:
    more = rank - update.rank
    pad = torch.nn.functional.pad
    return LowRank(pad(update.down, (0, 0, 0, more)), pad(update.up, (0, more)), 1.0)
