"""A layer that starts anywhere and changes nothing: what is trained is counted from where it started."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from .layer import LoraLayer
from .update import low_rank

if TYPE_CHECKING:
    from adapterkit import Site

    from .config import LoraConfig

__all__ = ["ShiftedLayer", "doubled"]


class ShiftedLayer(LoraLayer):
    """``y + s B(A(x)) - s B0(A0(x))``, with the factors B0 and A0 that training started from.

    PiSSA and OLoRA start from a part of the weight and take it out of the base. Here the base stays as it is, and the part is
    taken out of the update. The two terms are computed alike, so that at the start they are equal to the bit.
    """

    first_down: Tensor
    first_up: Tensor

    def __init__(self, site: Site, config: LoraConfig) -> None:
        super().__init__(site, config)
        self.config = config
        down, up = (factor.detach().clone() for factor in self.factors())
        self.register_buffer("first_down", down)
        self.register_buffer("first_up", up)

    def set_factors(self, down: Tensor, up: Tensor) -> None:
        """Start from other factors."""
        super().set_factors(down, up)
        self.first_down, self.first_up = (factor.detach().clone() for factor in self.factors())

    def updated(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` with the difference added."""
        start = low_rank(x, self.first_down, self.first_up, self.scale * self.site.output_scale)
        return y + (self.low_rank(x) - start).to(y.dtype)

    def plain(self) -> LoraLayer:
        """The same as a layer of twice the rank that takes nothing out."""
        layer = LoraLayer(self.site, doubled(self.config))
        down, up = self.factors()
        layer.set_factors(torch.cat([down, self.first_down]), torch.cat([up, -self.first_up], dim=1))
        layer.base_layer = self.base_layer
        return layer


def doubled(config: LoraConfig) -> LoraConfig:
    """The configuration of the plain layers: every rank twice as large, every scale the same."""
    times = math.sqrt(2.0) if config.use_rslora else 2.0
    return attrs.evolve(
        config,
        rank=2 * config.rank,
        alpha=times * (config.alpha or 2.0 * config.rank),
        rank_pattern={name: 2 * rank for name, rank in config.rank_pattern.items()},
        alpha_pattern={name: times * alpha for name, alpha in config.alpha_pattern.items()},
        init_lora_weights=None,
    )
