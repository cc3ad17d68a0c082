"""LoRA's layer: the low-rank update at one site, and the site's bias where that is trained too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapterkit import LowRank, Site, pattern_value

from .copies import TrainedCopy
from .together import update_together
from .update import low_rank, update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit import Dense, Scale

    from .config import LoraConfig

__all__ = ["LoraLayer", "TiedLayer", "Weight", "scale_of", "start_usual"]


def scale_of(name: str, config: LoraConfig) -> tuple[int, float]:
    """The rank at a site, and the scale of its update."""
    rank: int = pattern_value(config.rank_pattern, name, config.rank)
    alpha: float = pattern_value(config.alpha_pattern, name, config.alpha or 2.0 * config.rank)
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)


class LoraLayer(nn.Module):
    """``y + scale * B(A(dropout(x)))``; B starts at zero, so that a fresh layer changes nothing.

    On an embedding it is A that starts at zero, ``x`` holds token ids, and nothing is dropped; all this as in PEFT.
    """

    overwrites_output = True

    def __init__(self, site: Site, config: LoraConfig) -> None:
        super().__init__()
        self.site = site
        rank, self.scale = scale_of(site.name, config)
        self.dropout = 0.0 if site.kind == "embedding" else config.dropout
        down, up = torch.empty(rank, site.in_features), torch.empty(site.out_features, rank)
        _start(down, up, config.init_lora_weights, is_embedding=site.kind == "embedding")
        if site.kind == "embedding":
            self.lora_embedding_A, self.lora_embedding_B = nn.Parameter(down), nn.Parameter(up)
        else:
            self.lora_A, self.lora_B = Weight(down), Weight(up)
        trains_bias = config.bias is not None and "bias" in site.parameters
        # on disk, too, the bias of a target stands under the name that the layer has inside PEFT's
        self.base_layer = TrainedCopy(site, ("bias",)) if trains_bias else None

    def factors(self) -> tuple[Tensor, Tensor]:
        """A ``(rank, in_features)`` and B ``(out_features, rank)``."""
        if self.site.kind == "embedding":
            return self.lora_embedding_A, self.lora_embedding_B
        return self.lora_A.weight, self.lora_B.weight

    def set_factors(self, down: Tensor, up: Tensor) -> None:
        """Start from other factors."""
        for mine, given in zip(self.factors(), (down, up), strict=True):
            mine.data = given.detach().to(mine.device, mine.dtype).contiguous()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` with the update added, in ``y``'s dtype."""
        y = self.updated(functional.dropout(x, self.dropout, self.training and self.dropout > 0.0), y)
        return y if self.base_layer is None else self.base_layer(x, y)

    @staticmethod
    def together(shares: Sequence[Any], x: Tensor, y: Tensor) -> Tensor | None:
        """The same for layers of several adapters in training, each on its own tokens."""
        return update_together(shares, x, y) if type(shares[0].layer) is LoraLayer else None

    def updated(self, x: Tensor, y: Tensor) -> Tensor:
        """The same without the bias."""
        if self.site.kind == "embedding":
            return y + self.low_rank(x).to(y.dtype)
        # without dropout both terms have the same input, and one backward pass
        weight = None if self.training and self.dropout else self.site.frozen_weight
        return update(x, y, *self.factors(), self.scale, weight=weight)

    def low_rank(self, x: Tensor) -> Tensor:
        """The update alone."""
        return low_rank(x, *self.factors(), self.scale * self.site.output_scale)

    def lower(self) -> tuple[LowRank | Scale | Dense, ...]:
        """The same as effects."""
        bias = () if self.base_layer is None else self.base_layer.lower()
        return (*self.lower_update(), *bias)

    def lower_update(self) -> tuple[LowRank | Scale, ...]:
        """The update as effects."""
        down, up = self.factors()
        return (LowRank(down.detach(), up.detach(), self.scale),)


class TiedLayer(LoraLayer):
    """At a head whose weight is the embedding's: the embedding's update, seen from the other side.

    While they are trained, A and B are the embedding's B and A; the layer's own take their values when training ends, and are
    what is saved, as PEFT does.
    """

    def __init__(self, site: Site, config: LoraConfig, owner: LoraLayer) -> None:
        super().__init__(site, config)
        self.requires_grad_(requires_grad=False)
        self._owner = (owner,)  # not registered: what is trained is the owner's

    def updated(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` with the embedding's update added."""
        down, up = self._owner[0].factors()
        return update(x, y, up.T, down.T, self.scale)

    def settle(self) -> None:
        """Take the owner's values."""
        down, up = self._owner[0].factors()
        self.set_factors(up.T, down.T)


class Weight(nn.Module):
    """Holds one matrix under the name that PEFT gives it on disk: ``lora_A.weight``."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def _start(down: Tensor, up: Tensor, how: Any, *, is_embedding: bool) -> None:
    """Set fresh factors in place, in the ways that need nothing of the base."""
    if is_embedding:
        nn.init.zeros_(down)
        nn.init.normal_(up)
        return
    if how == "orthogonal":
        _start_orthogonal(down, up)
        return
    start_usual(down, up, how, len(down))


def start_usual(down: Tensor, up: Tensor, how: Any, rank: int) -> None:
    """A random, B zero, in place."""
    if how == "gaussian":
        nn.init.normal_(down, std=1 / rank)
    else:
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    nn.init.zeros_(up)


def _start_orthogonal(down: Tensor, up: Tensor) -> None:
    """Both factors full, their product zero: the rows of each are combinations of other rows of one orthogonal matrix.

    As https://datta0.github.io/posts/rethink-lora-init/ has it.
    """
    rank = len(down)
    rows, _ = torch.linalg.qr(torch.randn(rank, rank))
    down.copy_((torch.randn(down.shape[1], rank // 2) @ rows[0::2]).T / 10.0)
    up.copy_((torch.randn(rank // 2, len(up)).T @ rows[1::2]) / 10.0)
