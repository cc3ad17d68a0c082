"""Low-rank updates of parameters that belong to no linear layer, such as the fused experts of a mixture.

PEFT's ``target_parameters``. A parameter of three dimensions holds one matrix for each expert, and its factors lie side by side
in one pair: A is ``(rank * experts, in_features)`` with expert after expert, B ``(out_features, rank * experts)`` with
direction after direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapterkit import Dense, Site, rerun

from .layer import Weight, scale_of, start_usual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import LoraConfig

__all__ = ["ExpertsLayer"]


class ExpertsLayer(nn.Module):
    """The module run with ``W + scale * B @ A`` for each of its targeted parameters.

    PEFT wraps a module once for each parameter, the first innermost: the last one's factors stand at the module itself, those
    before it one ``base_layer`` deeper each. Here a layer holds the layer of the parameters before it in the same way.
    """

    def __init__(self, site: Site, config: LoraConfig, names: Sequence[str]) -> None:
        super().__init__()
        self.site, self.name = site, names[-1]
        rank, self.scale = scale_of(f"{site.name}.{self.name}", config)
        experts, out_features, in_features = self._shape()
        down, up = torch.empty(rank * experts, in_features), torch.empty(out_features, rank * experts)
        start_usual(down, up, config.init_lora_weights, rank)
        self.lora_A, self.lora_B = Weight(down), Weight(up)
        self.base_layer = ExpertsLayer(site, config, names[:-1]) if names[:-1] else None

    def forward(self, x: Any, y: Any) -> Any:  # noqa: ARG002 - what every layer takes
        """What the module with its changed parameters returns."""
        parameters = self.site.parameters
        changed = {name: parameters[name] + delta.to(parameters[name].dtype) for name, delta in self.deltas().items()}
        return rerun(self.site.module, changed, x)

    def deltas(self) -> dict[str, Tensor]:
        """What is added to each parameter, in its shape."""
        inner = {} if self.base_layer is None else self.base_layer.deltas()
        return {**inner, self.name: self._delta()}

    def lower(self) -> tuple[Dense, ...]:
        """The same as effects."""
        transposed = self.site.kind in ("conv1d", "embedding")
        return tuple(
            Dense(one.detach().T if transposed and name == "weight" else one.detach(), parameter=name)
            for name, one in self.deltas().items()
        )

    def _shape(self) -> tuple[int, int, int]:
        """Experts, outputs and inputs of each."""
        shape = self.site.parameters[self.name].shape
        if len(shape) == 2:
            return 1, shape[0], shape[1]
        experts, first, second = shape
        return (experts, second, first) if self._is_transposed() else (experts, first, second)

    def _is_transposed(self) -> bool:
        return bool(getattr(self.site.module, "is_transposed", False))

    def _delta(self) -> Tensor:
        experts, out_features, in_features = self._shape()
        down = self.lora_A.weight.view(experts, -1, in_features)
        up = self.lora_B.weight.view(out_features, -1, experts).permute(2, 0, 1)
        delta = self.scale * (up @ down)
        if self.site.parameters[self.name].dim() == 2:
            return delta[0]
        return delta.mT if self._is_transposed() else delta
