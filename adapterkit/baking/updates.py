"""What a selection of adapters does at each site, lowered for one site after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.compose import Blend
from adapterkit.errors import SelectionError
from adapterkit.resident import check_adapter, load_layers, lower
from adapterkit.runtime import check_effect
from adapterkit.sites import INPUT, SHARED

from .summing import blocks, change, changed_parameters, wide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit.adapter import Adapter
    from adapterkit.compose import Acting
    from adapterkit.contracts import Method
    from adapterkit.effects import Effect
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

__all__ = ["Parts", "Updates", "tied_sites"]

Parts = list[tuple[tuple["Effect", ...], float]]
"""The effects of each adapter at a site, and the adapter's weight."""
ALIKE = 1e-3
"""How far two updates of one weight may differ, relative to their size: they are computed in another order of the same sums."""


@attrs.frozen(eq=False)
class _Part:
    adapter: Adapter
    method: Method
    layers: nn.ModuleDict
    weight: float


class Updates:
    """The adapters of a selection, checked to fit the sites, and what they do at each.

    Args:
        registry: The plugins.
        acting: An adapter, a stack or a blend.
        sites: The base's sites; their weights may be on the meta device until effects are asked for.
        weights: The base's parameters by name, as far as adapters hold copies of them.

    Raises:
        ArtifactError: An adapter does not fit.
        SelectionError: One cannot be said as changes of weights.
    """

    def __init__(
        self, registry: Registry, acting: Acting, sites: Sequence[Site], weights: Mapping[str, Tensor]
    ) -> None:
        self._registry = registry
        self.sites = sites
        given = acting.parts if isinstance(acting, Blend) else ((acting, 1.0),)
        self._parts = [self._part(adapter, weight, weights) for adapter, weight in given]
        self.touched = {name for part in self._parts for name in part.layers} - {SHARED}

    def _part(self, adapter: Adapter, weight: float, weights: Mapping[str, Tensor]) -> _Part:
        method = self._registry.method(adapter.method)
        check_adapter(self._registry, adapter, self.sites, weights)
        layers = load_layers(self._registry, method, adapter, self.sites)
        who = f"the {adapter.method} adapter {adapter.digest[:12]}"
        if INPUT in layers:
            raise SelectionError(f"{who} puts tokens before the sequence, which no weight can say: it cannot be baked")
        if not method.traits.effects:
            raise SelectionError(
                f"{who} acts through its own layers, and not by changes of weights: it cannot be baked"
            )
        return _Part(adapter, method, layers, weight)

    @property
    def reads_all_weights(self) -> str:
        """The method whose layers have been made of the base's weights, all at once; empty where there is none."""
        for part in self._parts:
            tensors: list[Any] = [*part.layers.parameters(), *part.layers.buffers()]
            if any(one.is_meta for one in tensors):
                return part.adapter.method
        return ""

    def at(self, site: Site) -> Parts:
        """What the adapters do at a site, whose weights must be there.

        Raises:
            PluginError: A method gives what cannot act there.
            SelectionError: A method cannot say it as effects.
        """
        found: Parts = []
        for part in self._parts:
            if site.name in part.layers:
                found.append((self._lowered(part, site), part.weight))
        return found

    def _lowered(self, part: _Part, site: Site) -> tuple[Effect, ...]:
        layers: Any = type(part.layers)(
            {name: part.layers[name] for name in (site.name, SHARED) if name in part.layers}
        )
        found = lower(self._registry, part.method, layers)
        if found is None:
            raise SelectionError(
                f"method {part.adapter.method!r} cannot be said as changes of weights: it cannot be baked"
            )
        effects = tuple(found.get(site.name, ()))
        for effect in effects:
            check_effect(effect, site)
            values = attrs.asdict(effect, recurse=False).values()
            if any(isinstance(one, torch.Tensor) and one.is_meta for one in values):
                raise SelectionError(
                    f"method {part.adapter.method!r} reads other weights of the base than those of {site.name!r}: load the model, "
                    "and bake onto Base(model)"
                )
        return effects

    def check_tied(self, group: Sequence[Site]) -> None:
        """Refuse to change one of several layers that have one weight, or each otherwise: saved as one, all would change.

        Args:
            group: Sites that share their weight, which must be there.

        Raises:
            SelectionError: Names two of them.
        """
        first, *others = sorted(group, key=lambda site: site.name not in self.touched)
        mine = self.at(first)
        if "weight" not in changed_parameters(first, mine):
            mine = []
        for other in others:
            theirs = self.at(other) if other.name in self.touched else []
            if not _are_alike(first, mine, other, theirs):
                kind = "as it changes this" if theirs else ""
                raise SelectionError(
                    f"{first.name!r} shares its weight with {other.name!r}, which the adapter does not change {kind}".rstrip()
                )


def _are_alike(one: Site, parts: Parts, other: Site, others: Parts) -> bool:
    weight = one.parameters["weight"]
    size = difference = 0.0
    for rows in blocks(weight.shape):
        own = wide(weight[rows])
        mine, theirs = change(one, "weight", own, rows, parts), change(other, "weight", own, rows, others)
        size += float(mine.square().sum() + theirs.square().sum())
        difference += float((mine - theirs).square().sum())
    return difference <= ALIKE**2 * size


def tied_sites(sites: Sequence[Site]) -> list[list[Site]]:
    """Groups of sites that share a weight, each in the model's order."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        if site.name != INPUT:
            groups.setdefault(site.tied_to or site.name, []).append(site)
    return [group for group in groups.values() if len(group) > 1]
