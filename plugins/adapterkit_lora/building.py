"""Which layer acts at which site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .copies import TiedCopy, TrainedCopy
from .dora import DoraLayer
from .experts import ExpertsLayer
from .layer import LoraLayer, TiedLayer
from .shifted import ShiftedLayer
from .targets import low_rank_sites, parameter_sites, places, saved_sites, token_sites
from .tokens import TiedTokens, TokensLayer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from adapterkit import Site

    from .config import LoraConfig

__all__ = ["layers_for"]

TIED_BY_PEFT = "embed_tokens"
"""PEFT ties the head to an embedding of this name alone; the head is then none of the targets in its file."""


def layers_for(config: LoraConfig, sites: Sequence[Site]) -> dict[str, nn.Module]:
    """A fresh layer for each site that the options name."""
    kind = DoraLayer if config.use_dora else ShiftedLayer if config.is_shifted else LoraLayer
    layers: dict[str, nn.Module] = {
        site.name: kind(site, config) for site in low_rank_sites(config, sites, strict=False)
    }
    layers.update({site.name: ExpertsLayer(site, config, one) for site, one in parameter_sites(config, sites).items()})
    layers.update({site.name: TrainedCopy(site) for site in saved_sites(config, sites)})
    layers.update({site.name: TokensLayer(site, index) for site, index in token_sites(config, sites).items()})
    if config.bias == "all":
        rest = (site for site in places(sites) if site.name not in layers and "bias" in site.parameters)
        layers.update({site.name: TrainedCopy(site, ("bias",)) for site in rest})
    return {**layers, **_tied(config, sites, layers)}


def _tied(config: LoraConfig, sites: Sequence[Site], layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Layers at heads that share the weight of an embedding, where what is trained there holds for both.

    Trained tokens always do, as in PEFT; updates and copies where ``ensure_weight_tying`` says so.
    """
    tied: dict[str, nn.Module] = {}
    for site in sites:
        owner = layers.get(site.tied_to) if site.is_head else None
        asked = config.ensure_weight_tying and (site.name in layers or site.tied_to.endswith(TIED_BY_PEFT))
        if isinstance(owner, TokensLayer) and site.name not in layers:
            tied[site.name] = TiedTokens(site, owner)
        elif asked and isinstance(owner, LoraLayer):
            tied[site.name] = TiedLayer(site, config, owner)
        elif asked and isinstance(owner, TrainedCopy):
            tied[site.name] = TiedCopy(site, owner)
    return tied
