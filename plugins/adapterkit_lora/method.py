"""LoRA as a method: its layer, and its files in PEFT's words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapterkit import LayerMethod, LowRank, Site, Traits, pattern_value

from .config import LoraConfig
from .update import update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LoraLayer", "LoraMethod"]


class LoraLayer(nn.Module):
    """``y + scale * B(A(dropout(x)))``; B starts at zero, so that a fresh layer changes nothing.

    On an embedding it is A that starts at zero, ``x`` holds token ids, and nothing is dropped; all this as in PEFT.
    """

    def __init__(self, site: Site, config: LoraConfig) -> None:
        super().__init__()
        rank = pattern_value(config.rank_pattern, site.name, config.rank)
        alpha = pattern_value(config.alpha_pattern, site.name, config.alpha or 2.0 * config.rank)
        self.scale = alpha / (math.sqrt(rank) if config.use_rslora else rank)
        self.output_scale = site.output_scale
        self.dropout = config.dropout
        self.is_embedding = site.kind == "embedding"
        down, up = torch.empty(rank, site.in_features), torch.empty(site.out_features, rank)
        if self.is_embedding:
            self.lora_embedding_A = nn.Parameter(nn.init.zeros_(down))
            self.lora_embedding_B = nn.Parameter(nn.init.normal_(up))
        else:
            self.lora_A = _Weight(nn.init.kaiming_uniform_(down, a=math.sqrt(5)))
            self.lora_B = _Weight(nn.init.zeros_(up))

    def factors(self) -> tuple[Tensor, Tensor]:
        """A ``(rank, in_features)`` and B ``(out_features, rank)``."""
        if self.is_embedding:
            return self.lora_embedding_A, self.lora_embedding_B
        return self.lora_A.weight, self.lora_B.weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` with the update added, in ``y``'s dtype."""
        down, up = self.factors()
        if self.is_embedding:
            return y + functional.linear(functional.embedding(x, down.T) * (self.scale * self.output_scale), up).to(
                y.dtype
            )
        return update(functional.dropout(x, self.dropout, self.training), y, down, up, self.scale)

    def lower(self) -> tuple[LowRank, ...]:
        """The same as an effect."""
        down, up = self.factors()
        return (LowRank(down.detach(), up.detach(), self.scale),)


class _Weight(nn.Module):
    """Holds one matrix under the name that PEFT gives it on disk: ``lora_A.weight``."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


@attrs.frozen(eq=False)
class LoraMethod(LayerMethod):
    """The method ``lora``."""

    name: str = "lora"
    config: type = LoraConfig
    layer: type[nn.Module] = LoraLayer
    summary: str = attrs.field(default="a low-rank update beside each chosen weight", kw_only=True)
    traits: Traits = attrs.field(factory=lambda: Traits(effects=("LowRank",)), kw_only=True)
    defaults: Mapping[str, Any] = attrs.field(factory=lambda: {"learning_rate": 3e-4}, kw_only=True)
    peft_type: str = attrs.field(default="LORA", kw_only=True)

    def configure(self, config: LoraConfig, sites: Sequence[Site]) -> LoraConfig:
        """Also decides alpha, and folds the excluded modules into the targets."""
        resolved: LoraConfig = super().configure(config, sites)
        return attrs.evolve(resolved, alpha=config.alpha or 2.0 * config.rank, exclude_modules=())

    def to_peft(self, config: LoraConfig) -> dict[str, Any]:
        """PEFT's ``LoraConfig``."""
        targets = config.target_modules
        return {
            "r": config.rank,
            "lora_alpha": _whole(config.alpha or 2.0 * config.rank),
            "lora_dropout": config.dropout,
            "target_modules": targets if isinstance(targets, str) else list(targets),
            "use_rslora": config.use_rslora,
            "rank_pattern": dict(config.rank_pattern),
            "alpha_pattern": {name: _whole(alpha) for name, alpha in config.alpha_pattern.items()},
            "bias": "none",
            "exclude_modules": list(config.exclude_modules) or None,
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "modules_to_save": None,
            "use_dora": False,
        }

    def from_peft(self, values: Mapping[str, Any]) -> LoraConfig:
        """LoRA as PEFT wrote it; whatever would change the outcome and is not LoRA here is refused by name."""
        from .peft_form import read

        return read(values)


def _whole(alpha: float) -> int | float:
    # readers such as Ollama and llama.cpp expect a whole alpha to be written as one
    return int(alpha) if alpha == int(alpha) else alpha
