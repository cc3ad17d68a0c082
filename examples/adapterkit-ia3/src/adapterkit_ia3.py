"""IA3: one learned factor for each output of a layer, or for each input of a feed-forward layer (arXiv 2205.05638)."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from adapterkit import LayerConfig, LayerMethod, Scale, Traits, build_config, hookimpl, match, rerun, shorten, targeted


@attrs.frozen(kw_only=True)
class IA3Config(LayerConfig):
    """IA3's options, beside which layers it acts on."""

    feedforward_modules: tuple[str, ...] = ("down_proj", "mlp.c_proj")
    """Those of the layers whose inputs have the factors; with the others it is the outputs."""


class IA3Layer(nn.Module):
    """``y * factors``, or the base's output for ``x * factors``; they begin as one. Named and shaped as PEFT's are."""

    def __init__(self, site: Any, config: IA3Config) -> None:
        super().__init__()
        self.site = site
        self.on_input = bool(match(config.feedforward_modules, (site,), strict=False))
        self.ia3_l = nn.Parameter(torch.ones((1, site.in_features) if self.on_input else (site.out_features, 1)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """What replaces ``y``."""
        factors = self.ia3_l.flatten().to(x.dtype)
        return rerun(self.site.module, {}, x * factors) if self.on_input else y * factors

    def lower(self) -> tuple[Scale, ...]:
        """The same as an effect."""
        return (Scale(self.ia3_l.flatten(), side="input" if self.on_input else "output"),)


class IA3Method(LayerMethod):
    """Says the same as PEFT's ``IA3Config``, in files that both can read."""

    kinds = ("linear", "conv1d")

    def configure(self, config: IA3Config, sites: Any) -> IA3Config:
        """Also names the feed-forward layers among the targets."""
        chosen = match(config.feedforward_modules, targeted(config, self._mine(sites)), strict=False)
        resolved: IA3Config = super().configure(config, sites)
        return attrs.evolve(resolved, feedforward_modules=shorten(chosen, sites))

    def to_peft(self, config: IA3Config) -> dict[str, Any]:
        """PEFT wants each feed-forward module to be listed among the targets, word for word."""
        targets = sorted({*config.target_modules, *config.feedforward_modules})
        return {"target_modules": targets, "feedforward_modules": list(config.feedforward_modules)}

    def from_peft(self, values: Any) -> IA3Config:
        """The inverse."""
        lists = {name: values.get(name) or () for name in ("target_modules", "feedforward_modules")}
        return build_config(IA3Config, lists, what="fields of adapter_config.json")


@hookimpl
def adapterkit_methods() -> tuple[LayerMethod]:
    """The method ``ia3``."""
    traits = Traits(effects=("Scale",))
    return (IA3Method("ia3", IA3Config, IA3Layer, traits=traits, defaults={"learning_rate": 3e-2}, peft_type="IA3"),)
