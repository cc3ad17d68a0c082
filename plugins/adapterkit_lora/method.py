"""LoRA as a method: which layers it trains, what is kept of them, and what PEFT calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit import LayerMethod, Site, Traits

from .algebra import effects_of, expressed
from .building import layers_for
from .config import LoraConfig
from .copies import TiedCopy
from .layer import LoraLayer, TiedLayer
from .peft_form import read, written
from .shifted import ShiftedLayer, doubled
from .starting import start
from .targets import resolved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit import Base, Effects, Example

__all__ = ["LoraLayer", "LoraMethod"]


@attrs.frozen(eq=False)
class LoraMethod(LayerMethod):
    """The method ``lora``."""

    name: str = "lora"
    config: type = LoraConfig
    layer: type[nn.Module] = LoraLayer
    summary: str = attrs.field(default="a low-rank update beside each chosen weight", kw_only=True)
    traits: Traits = attrs.field(factory=lambda: Traits(effects=("LowRank", "Scale", "Dense", "Rows")), kw_only=True)
    defaults: Mapping[str, Any] = attrs.field(factory=lambda: {"learning_rate": 3e-4}, kw_only=True)
    peft_type: str = attrs.field(default="LORA", kw_only=True)

    def configure(self, config: LoraConfig, sites: Sequence[Site]) -> LoraConfig:
        """The same with alpha decided, and with everything that chooses targets folded into their names.

        Raises:
            ConfigError: Options that contradict each other, or that this base cannot do; all that is wrong together.
            TargetError: The base has no layer of such a name.
        """
        return resolved(config, sites)

    def build(self, config: LoraConfig, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """A layer for each site that the options name."""
        return layers_for(config, sites)

    def initialize(
        self, config: LoraConfig, layers: Mapping[str, nn.Module], base: Base, examples: Sequence[Example]
    ) -> None:
        """Start from the weights, or from the rows, where ``init_lora_weights`` says so."""
        start(config, layers, base, examples)

    def finish(self, config: LoraConfig, layers: Mapping[str, nn.Module]) -> tuple[LoraConfig, Mapping[str, nn.Module]]:
        """Plain layers: how an adapter was started, and what was trained as one, is no part of what it is."""
        for layer in layers.values():
            if isinstance(layer, (TiedLayer, TiedCopy)):
                layer.settle()
        kept = {name: layer.plain() if isinstance(layer, ShiftedLayer) else layer for name, layer in layers.items()}
        config = doubled(config) if config.is_shifted else config
        return attrs.evolve(config, init_lora_weights=None, ensure_weight_tying=False), kept

    def effects(self, config: LoraConfig, tensors: Mapping[str, Tensor]) -> Effects | None:
        """Updates and trained tokens; None for DoRA, and where biases, whole layers or other parameters are trained."""
        return effects_of(config, tensors)

    def express(self, effects: Effects) -> tuple[LoraConfig, Mapping[str, Tensor]] | None:
        """Updates and trained tokens as they are; None where there is anything else, or no update."""
        return expressed(effects, self.config)

    def learning_rate_factor(self, config: LoraConfig, name: str) -> float:
        """LoRA+: B, which starts at zero, learns faster than A."""
        return config.loraplus_lr_ratio or 1.0 if name.endswith(".lora_B.weight") else 1.0

    def to_peft(self, config: LoraConfig) -> dict[str, Any]:
        """PEFT's ``LoraConfig``."""
        return written(config)

    def from_peft(self, values: Mapping[str, Any]) -> LoraConfig:
        """LoRA as PEFT wrote it; whatever would change the outcome and is not done here is refused by name."""
        return read(values)
