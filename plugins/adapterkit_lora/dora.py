"""DoRA: the direction of a weight is trained by LoRA, its magnitude by itself (Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapterkit import LowRank, Scale, Site

from .layer import LoraLayer

if TYPE_CHECKING:
    from .config import LoraConfig

__all__ = ["DoraLayer"]


class DoraLayer(LoraLayer):
    """``m / |W + s B A| * (W + s B A) x``, with one norm for each output.

    The norm carries no gradient (section 4.3 of the paper). The magnitude m starts as the norm, so that a fresh layer
    changes nothing.
    """

    def __init__(self, site: Site, config: LoraConfig) -> None:
        super().__init__(site, config)
        magnitude = torch.empty(site.out_features)
        self.lora_magnitude_vector = nn.Parameter(magnitude if magnitude.is_meta else self.norm())

    @torch.no_grad()
    def norm(self) -> Tensor:
        """The length of each row of the changed weight, ``(out_features,)``, in float32; never zero."""
        weight = self.site.dense_weight().float()
        down, up = (factor.to(weight.device, torch.float32) for factor in self.factors())
        changed = torch.addmm(weight, up, down, alpha=self.scale)
        lengths: Tensor = torch.linalg.vector_norm(changed, dim=1)
        return lengths.clamp_min(torch.finfo(torch.float32).tiny)

    def ratio(self) -> Tensor:
        """What each output is multiplied by."""
        norm = self.norm()
        return self.lora_magnitude_vector.to(norm.device, torch.float32) / norm

    def updated(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` with the update added and each output but the bias multiplied."""
        ratio = self.ratio().to(y.dtype)
        bias = getattr(self.site.module, "bias", None)
        # as in PEFT, what is dropped from the input is missing from all that the ratio changes
        base = self.site.module.forward(x) if self.training and self.dropout else y
        plain = base if bias is None else base - bias
        # added to y, which at the start is changed by exactly nothing
        return y + (ratio - 1.0) * plain + ratio * self.low_rank(x).to(y.dtype)

    def lower_update(self) -> tuple[LowRank | Scale, ...]:
        """The update, then the ratio."""
        return (*super().lower_update(), Scale(self.ratio().detach(), bias=False))
