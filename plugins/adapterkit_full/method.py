"""Full fine-tuning beside a base that stays as it is: what is trained is the difference from each of its parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapterkit import INPUT, Dense, Method, Site, TargetError, Traits, match, rerun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Difference", "Full", "FullConfig", "TiedDifference"]

ALL = "all"
PLAIN = re.compile(r"[\w.]+")
PREFIX = "delta_"


@attrs.frozen(kw_only=True)
class FullConfig:
    """Full fine-tuning: every parameter of the targets is trained."""

    target_modules: str | tuple[str, ...] = ALL
    """`all`, names of layers or of blocks of them (`layers.1`, `lm_head`), or a regular expression for whole names."""
    exclude_modules: tuple[str, ...] = ()
    """Names of layers or blocks that are left alone although they are targets."""


class Difference(nn.Module):
    """``delta`` for each parameter of a site, which starts at zero: ``y + delta(x)``, or the module run with the sum.

    Gradients, and so AdamW's steps, are those of the weights themselves; weight decay pulls towards the base, not towards
    zero. It is kept in float32, where a step that is small beside the weight is not lost.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        for name, parameter in site.parameters.items():
            self.register_parameter(PREFIX + name, nn.Parameter(torch.zeros(parameter.shape)))

    def forward(self, x: Any, y: Any) -> Any:
        """What the layer with its changed parameters returns."""
        deltas = self.deltas()
        if self.site.kind == "module" or not set(deltas) <= {"weight", "bias"}:
            changed = {k: getattr(self.site.module, k) for k in deltas}
            return rerun(self.site.module, {k: (one + deltas[k]).to(one.dtype) for k, one in changed.items()}, x)
        y = y + add(x, deltas["weight"], self.site).to(y.dtype)
        return y + deltas["bias"].to(y.dtype) if "bias" in deltas else y

    def deltas(self) -> dict[str, Tensor]:
        """The differences by the names of the parameters, in their shapes."""
        return {name.removeprefix(PREFIX): one for name, one in self.named_parameters()}

    def lower(self) -> tuple[Dense, ...]:
        """The same as effects."""
        transposed = self.site.kind in ("conv1d", "embedding")
        return tuple(
            Dense(one.detach().T if transposed and name == "weight" else one.detach(), name)
            for name, one in self.deltas().items()
        )


class TiedDifference(nn.Module):
    """For a head that has the embedding's weight: it changes as the embedding's does."""

    def __init__(self, owner: Difference) -> None:
        super().__init__()
        self._owner = (owner,)  # not registered: the difference is the owner's, and saved once

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y + delta(x)``."""
        return y + functional.linear(x, self._owner[0].deltas()["weight"].to(x.dtype)).to(y.dtype)

    def lower(self) -> tuple[Dense, ...]:
        """The same as an effect."""
        return (Dense(self._owner[0].deltas()["weight"].detach()),)


def add(x: Tensor, delta: Tensor, site: Site) -> Tensor:
    """What a weight's difference, in the shape of the weight, makes of the input."""
    if site.kind == "embedding":
        return functional.embedding(x, delta) * site.output_scale
    return functional.linear(x, (delta if site.kind == "linear" else delta.T).to(x.dtype))


@attrs.frozen(eq=False)
class Full(Method):
    """The method ``full``."""

    name: str = "full"
    config: type = FullConfig
    summary: str = attrs.field(default="every weight, kept as its difference from the base", kw_only=True)
    traits: Traits = attrs.field(
        factory=lambda: Traits(quantized_base=False, stackable=False, effects=("Dense",)), kw_only=True
    )
    defaults: Mapping[str, Any] = attrs.field(
        factory=lambda: {"learning_rate": 2e-5, "weight_decay": 0.01}, kw_only=True
    )

    def configure(self, config: FullConfig, sites: Sequence[Site]) -> FullConfig:
        """The same, once every name is seen to choose something."""
        plain = (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules
        for name in (*plain, *config.exclude_modules):
            if not _within(name, sites):
                raise TargetError(
                    "target module", name, {part for site in sites for part in site.name.split(".")} | {ALL}
                )
        return config

    def build(self, config: FullConfig, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """A difference for each chosen site; one for those that share a weight."""
        owners = {site.name: Difference(site) for site in _chosen(config, sites)}
        tied = {site.name: TiedDifference(owners[site.tied_to]) for site in sites if site.tied_to in owners}
        return {**owners, **tied}

    def lower(self, layers: Mapping[str, Any]) -> dict[str, tuple[Dense, ...]]:
        """What each layer says."""
        return {name: layer.lower() for name, layer in layers.items()}


def _chosen(config: FullConfig, sites: Sequence[Site]) -> list[Site]:
    """The sites whose parameters are trained; where a weight is shared, the one that owns it."""
    plain = (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules
    mine = {name for target in plain for name in _within(target, sites)}
    mine -= {name for target in config.exclude_modules for name in _within(target, sites)}
    mine |= {site.tied_to for site in sites if site.name in mine and site.tied_to}
    return [site for site in sites if site.name in mine and not site.tied_to]


def _within(target: str, sites: Sequence[Site]) -> set[str]:
    """The names of the sites that ``target`` means: all, those that it is a part of the path of, or those that it fits."""
    layers = [site for site in sites if site.name != INPUT]
    if target == ALL:
        return {site.name for site in layers}
    if PLAIN.fullmatch(target):
        return {site.name for site in layers if f".{target}." in f".{site.name}."}
    return {site.name for site in match(target, layers, strict=False)}
