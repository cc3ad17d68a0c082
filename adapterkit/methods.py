"""The kind of method that most are: one that acts on layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs

from .contracts import Method
from .sites import shorten, targeted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from .effects import Effects
    from .sites import Site

__all__ = ["LayerConfig", "LayerMethod"]


@attrs.frozen(kw_only=True)
class LayerConfig:
    """Which layers a method acts on: the configuration of a method with no other option, and what those of others inherit."""

    target_modules: str | tuple[str, ...] = "all-linear"
    """`all-linear` (all but the head), names of layers, or a regular expression for whole names."""


@attrs.frozen(eq=False)
class LayerMethod(Method):
    """A method that acts on layers: given a layer's input and output, it returns the new output.

    ``layer(site, config)`` makes the module; its ``forward(x, y)`` takes the input ``x`` of shape ``(..., in_features)``
    and the base's output ``y`` of shape ``(..., out_features)``, and returns what replaces ``y``, leaving both as they are.
    An optional ``layer.lower()`` returns the same as a tuple of effects. The configuration names the layers in
    ``target_modules``: ``"all-linear"``, names, or a regular expression.
    """

    layer: Callable[[Site, Any], nn.Module]
    kinds: ClassVar[tuple[str, ...]] = ("linear", "conv1d", "embedding")
    """The kinds of sites that ``target_modules`` choose from."""

    def configure(self, config: Any, sites: Sequence[Site]) -> Any:
        """The same configuration with ``target_modules`` as the shortest list of names that means the same sites."""
        mine = self._mine(sites)
        return attrs.evolve(config, target_modules=shorten(targeted(config, mine), mine))

    def build(self, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """One layer for each targeted site."""
        return {site.name: self.layer(site, config) for site in targeted(config, self._mine(sites), strict=False)}

    def lower(self, layers: Mapping[str, nn.Module]) -> Effects | None:
        """What each layer's own ``lower()`` says; None when the layers have none."""
        if not all(hasattr(layer, "lower") for layer in layers.values()):
            return None
        return {name: cast("Any", layer).lower() for name, layer in layers.items()}

    def _mine(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        return tuple(site for site in sites if site.kind in self.kinds)
