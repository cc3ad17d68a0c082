"""Full fine-tuning beside a base that stays as it is: what is trained is the difference from each of its parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapterkit import INPUT, Dense, Method, Site, TargetError, Traits, match, rerun

from .algebra import PREFIX, TABLE, effects_of, expressed, parameter_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Effects

__all__ = ["Difference", "Full", "FullConfig", "TiedDifference"]

ALL = "all"
PLAIN = re.compile(r"[\w.]+")


@attrs.frozen(kw_only=True)
class FullConfig:
    """Full fine-tuning: every parameter of the targets is trained."""

    target_modules: str | tuple[str, ...] = ALL
    """`all`, names of layers, blocks or parameters (`lm_head`, `layers.1`, `c_fc.bias`), or a regular expression for layers."""
    exclude_modules: tuple[str, ...] = ()
    """Names of layers, blocks or parameters that are left alone although they are targets."""


class Difference(nn.Module):
    """A difference for each trained parameter of a site, which starts at zero: ``y + delta(x)``, or the module run with the sum.

    Gradients, and so AdamW's steps, are those of the weights themselves; weight decay pulls towards the base, not towards
    zero. It is kept in float32, where a step that is small beside the weight is not lost; that of a layer's weight is
    ``(out_features, in_features)`` however the base stores it, and that of an embedding a table as the base's.
    """

    def __init__(self, site: Site, names: Sequence[str]) -> None:
        super().__init__()
        self.site = site
        for name in names:
            shape = site.parameters[name].shape
            stored = TABLE if (name, site.kind) == ("weight", "embedding") else PREFIX + name
            self.register_parameter(stored, nn.Parameter(torch.zeros(shape[::-1] if self._is_turned(name) else shape)))

    def forward(self, x: Any, y: Any) -> Any:
        """What the layer with its changed parameters returns."""
        deltas = self.deltas()
        if self.site.kind == "module" or not set(deltas) <= {"weight", "bias"}:
            return rerun(self.site.module, {name: self._changed(name, delta) for name, delta in deltas.items()}, x)
        if "weight" in deltas:
            y = y + add(x, deltas["weight"], self.site).to(y.dtype)
        return y + deltas["bias"].to(y.dtype) if "bias" in deltas else y

    def deltas(self) -> dict[str, Tensor]:
        """The differences by the names of the parameters."""
        return {"weight" if name == TABLE else name.removeprefix(PREFIX): one for name, one in self.named_parameters()}

    def lower(self) -> tuple[Dense, ...]:
        """The same as effects."""
        is_table = self.site.kind == "embedding"
        return tuple(
            Dense(one.detach().T if is_table and name == "weight" else one.detach(), name)
            for name, one in self.deltas().items()
        )

    def _changed(self, name: str, delta: Tensor) -> Tensor:
        before: Tensor = getattr(self.site.module, name)
        return (before + (delta.T if self._is_turned(name) else delta)).to(before.dtype)

    def _is_turned(self, name: str) -> bool:
        return name == "weight" and self.site.kind == "conv1d"


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
    """What a weight's difference makes of the input."""
    if site.kind == "embedding":
        return functional.embedding(x, delta) * site.output_scale
    return functional.linear(x, delta.to(x.dtype))


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
        """Differences at each chosen site; one for those that share a weight."""
        by_name = {site.name: site for site in sites}
        owners = {name: Difference(by_name[name], names) for name, names in _chosen(config, sites).items()}
        tied = {site.name: owners[site.tied_to] for site in sites if site.tied_to in owners}
        return {
            **owners,
            **{name: TiedDifference(owner) for name, owner in tied.items() if "weight" in owner.deltas()},
        }

    def lower(self, layers: Mapping[str, Any]) -> dict[str, tuple[Dense, ...]]:
        """What each layer says."""
        return {name: layer.lower() for name, layer in layers.items()}

    def effects(self, config: FullConfig, tensors: Mapping[str, Tensor]) -> Effects:  # noqa: ARG002
        """The differences."""
        return effects_of(tensors)

    def express(self, effects: Effects) -> tuple[FullConfig, Mapping[str, Tensor]] | None:
        """Whatever is added to parameters, low-rank updates multiplied out; None where there is anything else.

        A head that shares the weight of an embedding changes with it.
        """
        tensors = expressed(effects)
        if tensors is None:
            return None
        return FullConfig(target_modules=tuple(parameter_of(name) for name in tensors)), tensors


def _chosen(config: FullConfig, sites: Sequence[Site]) -> dict[str, list[str]]:
    """The parameters that are trained by site; where a weight is shared, at the one that owns it."""
    plain = (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules
    mine = {one for target in plain for one in _within(target, sites)}
    mine -= {one for target in config.exclude_modules for one in _within(target, sites)}
    mine |= {(site.tied_to, "weight") for site in sites if site.tied_to and (site.name, "weight") in mine}
    owners = [site for site in sites if site.name != INPUT and not site.tied_to]
    named = {site.name: [name for name in site.parameters if (site.name, name) in mine] for site in owners}
    return {site: names for site, names in named.items() if names}


def _within(target: str, sites: Sequence[Site]) -> set[tuple[str, str]]:
    """Sites and parameters that ``target`` means: all, those that it is a part of the path of, or of the sites that it fits.

    The whole name of a parameter means that one alone.
    """
    every = {
        f"{site.name}.{name}": (site.name, name) for site in sites if site.name != INPUT for name in site.parameters
    }
    if target == ALL:
        return set(every.values())
    if target in every:
        return {every[target]}
    if PLAIN.fullmatch(target):
        return {one for path, one in every.items() if f".{target}." in f".{path}."}
    fitting = {site.name for site in match(target, sites, strict=False)}
    return {one for one in every.values() if one[0] in fitting}
