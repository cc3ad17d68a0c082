"""What the parents do, site by site: of their tensors alone, or against a base."""

from __future__ import annotations

import functools
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import ArtifactError, ConfigError, SelectionError, TargetError
from adapterkit.resident import check_adapter, effects_of, load_layers, lower
from adapterkit.sites import SHARED

from .changes import own_parameter, read, read_against

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit.base import Base
    from adapterkit.contracts import Method
    from adapterkit.effects import Effects
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

    from .changes import Change
    from .parents import Parent

__all__ = ["AgainstBase", "Alone", "acting"]


def acting(registry: Registry, parents: Sequence[Parent], base: Base | None) -> Alone | AgainstBase:
    """What the parents do, on a base where one is given.

    Raises:
        SelectionError: An adapter cannot be said as effects, or not without the base.
        ArtifactError: An adapter does not fit the base.
    """
    if base is None:
        effects = _alone(registry, parents)
        _check_related(parents, effects)
        return Alone(effects)
    return AgainstBase([Lowered.of(registry, parent, base) for parent in parents], base.sites)


def _alone(registry: Registry, parents: Sequence[Parent]) -> list[Effects]:
    """What each adapter's tensors say, or which of them say too little."""
    found, problems = [], []
    for parent in parents:
        try:
            found.append(effects_of(registry, parent.adapter))
        except SelectionError as error:
            problems.append(str(error))
    if problems:
        many = "these adapters cannot be merged:\n  - " if len(problems) > 1 else ""
        raise SelectionError(many + "\n  - ".join(problems))
    return found


def _check_related(parents: Sequence[Parent], acted: Sequence[Effects]) -> None:
    """Refuse adapters that nothing proves to be of one base, that call theirs otherwise, and have no site in common.

    Raises:
        ConfigError: Names the first such pair.
    """
    for (one, mine), (other, theirs) in combinations(zip(parents, acted, strict=True), 2):
        bases = one.adapter.manifest.base, other.adapter.manifest.base
        names = [Path(base.name).name for base in bases]
        unproven = not all(base.fingerprint for base in bases)
        if unproven and all(names) and names[0] != names[1] and mine and theirs and not mine.keys() & theirs.keys():
            said = f"adapters: {one} is for {bases[0].name!r} and {other} for {bases[1].name!r}, and they have no layer in common"
            raise ConfigError("these adapters cannot be merged so", [f"{said}; if it is one base, give base=…"])


@attrs.frozen(eq=False)
class Alone:
    """What adapters' tensors say by themselves."""

    effects: Sequence[Effects]

    def places(self) -> list[str]:
        """The sites that any of them acts on."""
        return sorted({site for one in self.effects for site, here in one.items() if here})

    def borrowed(self) -> dict[str, str]:
        """Nothing is known of sites that share a weight."""
        return {}

    def methods(self, parents: Sequence[Parent]) -> dict[str, set[str]]:
        """The methods that act at each site, in the parents' order."""
        return _methods(parents, self.effects)

    def at(self, site: str) -> list[Change | None]:
        """What each changes at a site; None where it leaves it alone."""
        return [read(one[site]) if one.get(site) else None for one in self.effects]

    def own(self, site: str, name: str) -> Tensor | None:  # noqa: ARG002 - as against a base
        """Nothing is known of the base's parameters."""
        return None


@attrs.frozen(eq=False, slots=False)
class AgainstBase:
    """What adapters do to a base, lowered one site at a time.

    A site that shares the weight of another is merged with that one, where every adapter that acts on either acts on both alike.
    """

    parents: Sequence[Lowered]
    sites: Sequence[Site]

    def places(self) -> list[str]:
        """The sites that any of them acts on, without those that are borrowed."""
        borrowed = self.borrowed()
        mine = {name for one in self.parents for name in one.layers}
        return [site.name for site in self.sites if site.name in mine and site.name not in borrowed]

    def borrowed(self) -> dict[str, str]:
        """Sites that do as others do, whose weight they share, by every adapter that acts on either; and these others."""
        found = {
            site: [one for one in self.parents if {site.name, site.tied_to} & set(one.layers)] for site in self.sites
        }
        return {
            site.name: site.tied_to
            for site, there in found.items()
            if there and all(one.borrows(site) for one in there)
        }

    def methods(self, parents: Sequence[Parent]) -> dict[str, set[str]]:
        """The methods that act at each site, in the parents' order."""
        return _methods(parents, [one.layers for one in self.parents])

    def at(self, site: str) -> list[Change | None]:
        """What each changes at a site, computed against the base's own parameters; None where it leaves it alone."""
        place = self._site(site)
        return [one.at(place) if site in one.layers else None for one in self.parents]

    def own(self, site: str, name: str) -> Tensor | None:
        """The base's own parameter."""
        return own_parameter(self._site(site), name)

    def _site(self, name: str) -> Site:
        return self._by_name[name]

    @functools.cached_property
    def _by_name(self) -> dict[str, Site]:
        return {site.name: site for site in self.sites}


@attrs.frozen(eq=False)
class Lowered:
    """The layers of one adapter at the sites of a base."""

    registry: Registry
    method: Method
    layers: Mapping[str, nn.Module]

    @classmethod
    def of(cls, registry: Registry, parent: Parent, base: Base) -> Lowered:
        """Of an adapter, once it is seen to fit."""
        adapter, method = parent.adapter, registry.method(parent.adapter.method)
        try:
            check_adapter(registry, adapter, base.sites, dict(base.model.named_parameters(remove_duplicate=False)))
        except (ArtifactError, ConfigError, TargetError) as error:
            raise ArtifactError(f"{parent} does not fit the base: {error}") from error
        layers = load_layers(registry, method, adapter, base.sites)
        return cls(registry, method, dict(layers.items()))

    def borrows(self, site: Site) -> bool:
        """Whether it acts at a site with what it has at the one that owns the weight."""
        return bool(site.tied_to) and site.name in self.layers and not self.layers[site.name].state_dict()

    def at(self, site: Site) -> Change | None:
        """What it changes at a site."""
        device = next(iter(site.parameters.values())).device  # where it computes with the base's weight
        mine = {name: self.layers[name].to(device) for name in (site.name, SHARED) if name in self.layers}
        effects = lower(self.registry, self.method, mine)
        if effects is None:
            raise SelectionError(f"method {self.method.name!r} acts through its own layers: it cannot be merged")
        return read_against(site, effects[site.name]) if effects.get(site.name) else None


def _methods(parents: Sequence[Parent], acted: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for parent, sites in zip(parents, acted, strict=True):
        for site in sites:
            found.setdefault(site, set()).add(parent.adapter.method)
    return found
