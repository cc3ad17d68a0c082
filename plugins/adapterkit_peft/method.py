"""A method that trains through PEFT's own layers, attached at adapterkit's sites."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit import INPUT, SHARED, ConfigError, Method, Traits, pattern_value, shorten, targeted

from .algebra import check_shapes, factors_of, sites_of, tensors_of
from .catalogue import KINDS, Kind
from .choices import default_targets, feedforward_modules, fitted_sizes
from .files import from_disk, read, to_disk, written
from .layers import assemble
from .lowering import lower_layer
from .options import Changes, fields_of, options_class
from .skeleton import inject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit import Effects, Site

    from .skeleton import Injected

__all__ = ["PeftMethod", "need_peft", "peft_config"]

REWRITING = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""Initialisations of LoRA that put something else into the base's own weights."""
STARTS = (True, False, None, "gaussian", "orthogonal")
"""Initialisations of LoRA that are done in the layer itself."""


@attrs.frozen(eq=False)
class PeftMethod(Method):
    """The method of one PEFT type."""

    kind: Kind = attrs.field(kw_only=True)

    @classmethod
    def of(cls, peft_type: str) -> PeftMethod:
        """The method ``peft:<peft_type in lower case>``."""
        kind = KINDS[peft_type]
        defaults = {"target_modules": kind.targets, **dict.fromkeys(kind.fitted)}
        return cls(
            f"peft:{peft_type.lower()}",
            options_class(peft_type, Changes(defaults, dict(kind.fixed), dict(kind.without))),
            summary=f"PEFT's {peft_type}: {kind.about}",
            traits=Traits(
                identity_start=kind.identity,
                stackable=kind.additive,
                quantized_base="forward" not in kind.reads,
                effects=kind.effects,
            ),
            defaults=kind.defaults,
            peft_type=peft_type,
            kind=kind,
        )

    # -- the life of an adapter ---------------------------------------------------------------------------------------

    def configure(self, config: Any, sites: Sequence[Site]) -> Any:
        """The same with every choice made that PEFT leaves open, and with the layers by name."""
        need_peft(self.name)
        _refuse(self.name, config)
        every = [site for site in sites if site.name != INPUT]
        if config.target_modules is None:
            config = attrs.evolve(config, target_modules=default_targets(self.peft_type, every))
        chosen = targeted(config, self._mine(sites))
        if config.target_modules == "all-linear" and not self.kind.gates:
            chosen = tuple(site for site in chosen if site.out_features > 1)
        changes: dict[str, Any] = {"target_modules": shorten(chosen, every)}
        if self.peft_type == "IA3" and config.feedforward_modules is None:
            changes["feedforward_modules"] = shorten_names(feedforward_modules(chosen, every), every)
        options = {field.name for field in attrs.fields(type(config))}
        changes |= dict.fromkeys({"exclude_modules", "layers_pattern", "layers_to_transform"} & options)
        defaults = {name: fields_of(self.peft_type)[name]["default"] for name in self.kind.fitted}
        changes |= fitted_sizes(self.kind.fitted, config, defaults, chosen)
        return attrs.evolve(config, **changes)

    def build(self, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """PEFT's layer at each target, and what they share."""
        need_peft(self.name)
        chosen = targeted(config, self._mine(sites), strict=False)
        made, later = self._made(config, chosen)
        layers, shared = assemble(made, {site.name: site for site in chosen}, self.kind, later)
        return {**layers, **({SHARED: shared} if shared is not None else {})}

    def lower(self, layers: Mapping[str, Any]) -> Mapping[str, tuple[Any, ...]] | None:
        """What each layer does to its site, as its method's kind says."""
        effects = {
            name: lower_layer(self.peft_type, self.kind, layer) for name, layer in layers.items() if name != SHARED
        }
        if any(one is None for one in effects.values()):
            return None
        return {name: one for name, one in effects.items() if one is not None}

    def effects(self, config: Any, tensors: Mapping[str, Tensor]) -> Effects | None:
        """What each layer does; None where the base's weights make a part of it, or the tensors do not tell its layers' sizes."""
        sites = sites_of(self.peft_type, tensors)
        if sites is None:
            return None
        with torch.device("meta"):
            layers = self.build(config, sites)
        check_shapes(layers, tensors)
        for site, layer in layers.items():
            layer.load_state_dict({name: tensors[f"{site}.{name}"] for name in layer.state_dict()}, assign=True)
            layer.eval()
        return self.lower(layers)

    def express(self, effects: Effects) -> tuple[Any, Mapping[str, Tensor]] | None:
        """The factors of IA3; None for all other types."""
        factors = factors_of(effects) if self.peft_type == "IA3" else None
        if factors is None:
            return None
        fed_forward = tuple(sorted(site for site, one in factors.items() if one.side == "input"))
        config = self.config(target_modules=tuple(sorted(factors)), feedforward_modules=fed_forward)
        return config, tensors_of(factors)

    # -- files --------------------------------------------------------------------------------------------------------

    def to_peft(self, config: Any) -> dict[str, Any]:
        """PEFT's own configuration."""
        return written(self.peft_type, config, self.kind.fixed)

    def from_peft(self, values: Mapping[str, Any]) -> Any:
        """The same as options; what would change the outcome and is not done here is refused by name."""
        return read(self.peft_type, self.config, values, self.kind.fixed)

    def to_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """By PEFT's names."""
        return to_disk(tensors)

    def from_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """From PEFT's names."""
        return from_disk(tensors, repeated=self.kind.repeated)

    # -- with PEFT ----------------------------------------------------------------------------------------------------

    def _made(self, config: Any, chosen: Sequence[Site]) -> tuple[Injected, Callable[[], Injected] | None]:
        """PEFT's layers, and what makes them in memory once more where they are without it and have to be computed."""
        if torch.get_default_device().type != "meta":
            return self._inject(config, chosen), None
        if self.kind.measured:
            known = self._again(config, chosen)
            return known.without_memory(), lambda: known
        return self._inject(config, chosen), (
            functools.cache(lambda: self._again(config, chosen)) if self.kind.derived else None
        )

    def _inject(self, config: Any, chosen: Sequence[Site]) -> Injected:
        """Have PEFT make its layers: of all sites at once, or, where it reads weights, of one after another."""
        weights = "build" in self.kind.reads and torch.get_default_device().type != "meta"
        groups = [[site] for site in chosen] if weights and not self.kind.shares else [chosen]
        try:
            made = [self._inject_into(config, group, weights=weights) for group in groups]
        except (ValueError, TypeError, NotImplementedError, RuntimeError, AssertionError) as error:
            raise ConfigError(f"options of method {self.name!r} do not fit this base", [_first_line(error)]) from error
        return attrs.evolve(made[0], layers={name: layer for one in made for name, layer in one.layers.items()})

    def _inject_into(self, config: Any, chosen: Sequence[Site], *, weights: bool) -> Injected:
        theirs = peft_config(self.peft_type, config, chosen, self.kind.fixed)
        return inject(theirs, chosen, weights=weights, conv1d=self.kind.conv1d)

    def _again(self, config: Any, chosen: Sequence[Site]) -> Injected:
        """The same layers in memory, for tensors that take the place of what is drawn at random."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return self._inject(config, chosen)

    def _mine(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        return tuple(site for site in sites if site.kind in self.kind.kinds)


def need_peft(method: str) -> None:
    """Refuse to go on without PEFT.

    Raises:
        ConfigError: Says how to get it.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"method {method!r} needs PEFT", ["peft: is not installed; pip install 'adapterkit[peft]'"])


def peft_config(peft_type: str, config: Any, chosen: Sequence[Site], fixed: Mapping[str, Any]) -> Any:
    """PEFT's configuration for exactly the chosen sites: it is given whole names, and no pattern of a stranger's to try."""
    import dataclasses

    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    cls = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    names = [site.name for site in chosen]
    told = {**attrs.asdict(config), **fixed, "target_modules": names}
    told |= dict.fromkeys({"exclude_modules", "layers_pattern", "layers_to_transform"} & set(told))
    for name in [name for name in told if name.endswith("_pattern") and told[name]]:
        found = {one: pattern_value(told[name], one, None) for one in names}
        told[name] = {one: value for one, value in found.items() if value is not None}
    if told.get("feedforward_modules") is not None:
        told["feedforward_modules"] = _fed_forward(told["feedforward_modules"], names)
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in told.items() if name in known}
    )


def _fed_forward(said: str | Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that IA3's ``feedforward_modules`` means: a regular expression for whole names, or ends of names."""
    if isinstance(said, str):
        return [name for name in names if pattern_value({f"^(?:{said})": True}, name, default=False)]
    return [name for name in names if any(name == end or name.endswith(f".{end}") for end in said)]


def shorten_names(names: Sequence[str], sites: Sequence[Site]) -> tuple[str, ...]:
    """The shortest list of names that means the sites of these names."""
    chosen = [site for site in sites if site.name in set(names)]
    return shorten(chosen, sites) if chosen else ()


def _refuse(method: str, config: Any) -> None:
    start = getattr(config, "init_lora_weights", True)
    if isinstance(start, str) and start.startswith(REWRITING):
        raise ConfigError(
            f"method {method!r} leaves the base as it is",
            [f"init_lora_weights: {start!r} rewrites the base's own weights; see what method='lora' has instead"],
        )
    if start not in STARTS:
        raise ConfigError(
            f"options of method {method!r} do not fit", [f"init_lora_weights: must be one of {STARTS}, not {start!r}"]
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
