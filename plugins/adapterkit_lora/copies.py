"""Copies of the base's own parameters that are trained in its stead: biases, and whole layers (PEFT's ``modules_to_save``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapterkit import ConfigError, Dense, Site, rerun

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TiedCopy", "TrainedCopy", "copy_of"]


def copy_of(parameter: Tensor) -> Tensor:
    """A float32 copy, where a step that is small beside a weight is not lost; without values on the meta device."""
    copy = torch.empty(parameter.shape)
    return copy if copy.is_meta else parameter.detach().to("cpu", torch.float32, copy=True)


class TrainedCopy(nn.Module):
    """Parameters of a site, trained from where the base has them: the layer answers as if it held them.

    Raises:
        ConfigError: The site is quantized: a copy of whole numbers cannot be trained.
    """

    def __init__(self, site: Site, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.site = site
        for name in names or site.parameters:
            parameter = site.parameters[name]
            if not parameter.is_floating_point():
                raise ConfigError("options do not fit this base", [f"modules_to_save: {site.name!r} is quantized"])
            self.register_parameter(name, nn.Parameter(copy_of(parameter)))

    def forward(self, x: Any, y: Any) -> Any:
        """What the layer with its trained parameters returns."""
        own = dict(self.named_parameters())
        if set(own) == {"bias"} and self.site.kind != "module":
            return y + self.change("bias").to(y.dtype)
        return rerun(self.site.module, {name: one.to(self.site.parameters[name].dtype) for name, one in own.items()}, x)

    def change(self, name: str) -> Tensor:
        """How far a parameter is from the base's, in float32."""
        own: Tensor = getattr(self, name)
        return own.float() - self.site.parameters[name].detach().float()

    def lower(self) -> tuple[Dense, ...]:
        """The same as effects."""
        transposed = self.site.kind in ("conv1d", "embedding")
        changes = {name: self.change(name).detach() for name, _ in self.named_parameters()}
        return tuple(
            Dense(one.T if transposed and name == "weight" else one, parameter=name) for name, one in changes.items()
        )


class TiedCopy(TrainedCopy):
    """At a head whose weight is the embedding's: the embedding's trained copy, until training ends."""

    def __init__(self, site: Site, owner: TrainedCopy) -> None:
        super().__init__(site)
        self.requires_grad_(requires_grad=False)
        self._owner = (owner,)  # not registered: what is trained is the owner's

    def forward(self, x: Any, y: Any) -> Any:  # noqa: ARG002 - what every layer takes
        """What the head with the embedding's weight returns."""
        weight: Tensor = self._owner[0].weight  # type: ignore[assignment]
        return rerun(self.site.module, {"weight": weight.to(self.site.weight.dtype)}, x)

    def settle(self) -> None:
        """Take the owner's values."""
        self.weight.data = self._owner[0].weight.detach().clone()  # type: ignore[operator]
