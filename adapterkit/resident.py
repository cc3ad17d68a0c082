"""From an adapter to what acts on the base: layers, effects, actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn

from .artifact.copies import check_copies
from .artifact.fit import check_tensors
from .effects import Dense, LowRank
from .errors import ArtifactError, ConfigError, PluginError, SelectionError, TargetError
from .runtime import InputAction, actions_for, plan_bytes, uniform_plan
from .runtime.actions import LayerAction
from .sites import INPUT, SHARED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from .adapter import Adapter
    from .contracts import Method
    from .effects import Effect, Effects
    from .registry import Registry
    from .runtime import Action, Plan
    from .sites import Site

__all__ = [
    "Resident",
    "build_layers",
    "check_adapter",
    "check_method",
    "effects_of",
    "expected_tensors",
    "flatten",
    "load_layers",
    "load_state",
    "lower",
    "make_resident",
    "plan_of_layers",
    "rehearse",
]


@attrs.frozen(eq=False)
class Resident:
    """An adapter in the base's memory, and what its sites do.

    Attributes:
        adapter: The adapter.
        plan: What its sites do.
        bytes: What the plan takes where the base computes, beside the base itself.
    """

    adapter: Adapter
    plan: Plan = attrs.field(repr=False)
    bytes: int


def build_layers(registry: Registry, method: Method, config: Any, sites: Sequence[Site]) -> nn.ModuleDict:
    """The method's layers by site name, checked to be at sites of this base."""
    layers: Mapping[str, nn.Module] = registry.call("build", method, config=config, sites=sites)
    unknown = sorted(set(layers) - {site.name for site in sites} - {SHARED})
    if unknown:
        raise SelectionError(f"method {method.name!r} built a layer at {unknown[0]!r}, which is no site of this base")
    made = _Layers(layers)
    _check_apart(method, made, sites)
    return made


def _check_apart(method: Method, layers: nn.ModuleDict, sites: Sequence[Site]) -> None:
    """Refuse layers that hold a part of the base: it would be trained, saved, and replaced by what a file holds."""
    of_base = {id(part) for site in sites for part in (site.module, *site.module.parameters(), *site.module.buffers())}
    for name, layer in layers.items():
        parts = (*layer.modules(), *layer.parameters(), *layer.buffers())
        if any(id(part) in of_base for part in parts):
            raise PluginError(
                f"the layer of method {method.name!r} at {name!r} holds a module or a tensor of the base; keep a copy of what "
                "it needs, or use the layer's output"
            )


def expected_tensors(
    registry: Registry, method: Method, config: Any, sites: Sequence[Site]
) -> dict[str, tuple[int, ...]]:
    """Which tensors, of which shapes, an adapter of this configuration holds on this base."""
    with torch.device("meta"):
        layers = build_layers(registry, method, config, sites)
    return {name: tuple(tensor.shape) for name, tensor in flatten(layers).items()}


def flatten(layers: Mapping[str, nn.Module] | nn.ModuleDict) -> dict[str, Tensor]:
    """The state of all layers by ``"<site>.<name in the layer>"``."""
    return {f"{site}.{name}": tensor for site, layer in layers.items() for name, tensor in layer.state_dict().items()}


def load_state(layers: nn.ModuleDict, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`flatten`: copy the state of all layers into them."""
    for site, layer in layers.items():
        layer.load_state_dict({name: tensors[f"{site}.{name}"] for name in layer.state_dict()})


def make_resident(registry: Registry, adapter: Adapter, sites: Sequence[Site], model: nn.Module) -> Resident:
    """Put an adapter where the base is, ready to act, once everything about it is seen to fit.

    Raises:
        ArtifactError: Its tensors are not exactly those that its method has on this base.
        SelectionError: Its method does not act on such a base.
    """
    method = registry.method(adapter.method)
    check_adapter(registry, adapter, sites, dict(model.named_parameters(remove_duplicate=False)))
    layers = load_layers(registry, method, adapter, sites)
    places = {site.name: _place(site, model) for site in sites if site.name in layers}
    for site, layer in layers.items():
        layer.to(places[site][0] if site in places else _device(model))
    effects = lower(registry, method, layers)
    if effects is None:
        for layer in layers.values():  # what a layer writes into its buffers while it acts must not reach the adapter
            layer.load_state_dict({name: one.clone() for name, one in layer.state_dict().items()}, assign=True)
        return _resident(adapter, plan_of_layers(method.name, layers), model)
    by_name = {site.name: site for site in sites}
    actions = {name: actions_for(by_name[name], here, *places[name]) for name, here in effects.items()}
    return _resident(adapter, uniform_plan(actions), model)


def _resident(adapter: Adapter, plan: Plan, model: nn.Module) -> Resident:
    return Resident(adapter, plan, plan_bytes(plan, model))


def check_adapter(registry: Registry, adapter: Adapter, sites: Sequence[Site], weights: Mapping[str, Tensor]) -> None:
    """Refuse an adapter that does not fit a base.

    Args:
        registry: The plugins.
        adapter: The adapter.
        sites: The base's; weights on the meta device will do.
        weights: The base's parameters by name, as far as the adapter holds copies of them.

    Raises:
        ArtifactError: Its tensors are not exactly those that its method has on this base.
        SelectionError: Its method does not act on such a base.
    """
    method = registry.method(adapter.method)
    check_method(method, sites)
    check_copies(adapter.copies, weights)
    check_tensors(adapter.tensors, _expected(registry, method, adapter.config, sites))


def check_method(method: Method, sites: Sequence[Site]) -> None:
    """Refuse a method that does not promise to act on such a base.

    Raises:
        SelectionError: The base is quantized, and the method needs its weights.
    """
    if not method.traits.quantized_base and any(site.is_quantized for site in sites):
        raise SelectionError(
            f"method {method.name!r} does not act on a quantized base; load it without `quantize`, or use another method"
        )


def _expected(registry: Registry, method: Method, config: Any, sites: Sequence[Site]) -> dict[str, tuple[int, ...]]:
    try:
        return expected_tensors(registry, method, config, sites)
    except (ConfigError, TargetError) as error:
        raise ArtifactError(f"the adapter does not fit this base: {error}") from error


def load_layers(registry: Registry, method: Method, adapter: Adapter, sites: Sequence[Site]) -> nn.ModuleDict:
    """The layers of an adapter, with its own tensors, which are not copied."""
    with torch.device("meta"):
        layers = build_layers(registry, method, adapter.config, sites)
    for site, layer in layers.items():
        mine = {name: adapter.tensors[f"{site}.{name}"] for name in layer.state_dict()}
        layer.load_state_dict(mine, assign=True)
    return layers.requires_grad_(requires_grad=False).eval()


def lower(registry: Registry, method: Method, layers: Mapping[str, nn.Module] | nn.ModuleDict) -> Effects | None:
    """What the method says that its layers do, held to its traits.

    Raises:
        PluginError: An effect where nothing was trained, or of a kind that the method does not promise.
    """
    effects: Effects | None = registry.call("lower", method, layers=dict(layers.items()))
    if effects is not None:
        _check_effects(method, effects, layers)
    return effects


def effects_of(registry: Registry, adapter: Adapter, sites: Sequence[Site] | None = None) -> Effects:
    """What an adapter does, as effects: of its tensors alone, or on the sites of its base where these are given.

    Of two sites that share a weight, the one without tensors of its own is left out: its layer is made where the other's is.

    Raises:
        ArtifactError: Its tensors are not those of its method and configuration, as far as that is seen without the base.
        SelectionError: It cannot be said as effects, or not without the base.
    """
    method = registry.method(adapter.method)
    if sites is None:
        try:
            effects = method.effects(adapter.config, adapter.tensors)
        except (ValueError, LookupError) as error:
            raise ArtifactError(f"{adapter!r} does not hold what its method writes: {error}") from error
        if effects is None:
            raise SelectionError(
                f"what the {adapter.method} adapter {adapter.digest[:12]} does depends on the base's weights, or cannot be said "
                "without them: give base=…"
            )
        return effects
    layers = load_layers(registry, method, adapter, sites)
    effects = lower(registry, method, layers)
    if effects is None:
        raise SelectionError(f"method {adapter.method!r} acts through its own layers: it cannot be said as effects")
    borrowed = {
        site.name for site in sites if site.tied_to and site.name in layers and not layers[site.name].state_dict()
    }
    tables = {site.name for site in sites if site.kind == "embedding"}
    return {
        site: tuple(_placed(one, is_table=site in tables) for one in here)
        for site, here in effects.items()
        if site not in borrowed
    }


def _placed(effect: Effect, *, is_table: bool) -> Effect:
    """The same, saying whether it acts at an embedding."""
    return attrs.evolve(effect, embedding=is_table) if isinstance(effect, (Dense, LowRank)) else effect


def rehearse(registry: Registry, method: Method, config: Any, layers: nn.ModuleDict, sites: Sequence[Site]) -> None:
    """Go the way from fresh layers to an adapter once before they are trained, so that no trained one is lost on it.

    Raises:
        PluginError: What ``finish`` keeps is not what ``build`` makes, or ``lower`` gives what the method does not promise.
    """
    config, kept = registry.call("finish", method, config=config, layers=dict(layers.items()))
    kept = dict(kept.items())
    found = {name: tuple(tensor.shape) for name, tensor in flatten(kept).items()}
    expected = expected_tensors(registry, method, config, sites)
    if found != expected:
        names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise PluginError(
            f"method {method.name!r} would keep other tensors than it builds again: {names[0]} is {found.get(names[0])}, and "
            f"{expected.get(names[0])} when it is built"
        )
    # one layer of each class: the effects of all may take as much memory as the base
    few = {type(layer): (name, layer) for name, layer in reversed(kept.items())}
    lower(registry, method, _Layers(dict(few.values())))


def plan_of_layers(method: str, layers: nn.ModuleDict) -> Plan:
    """The plan of layers that act themselves, as they do while they are trained."""
    return {name: _act(method, name, layer) for name, layer in layers.items() if name != SHARED}


def _act(method: str, site: str, layer: Any) -> Action:
    return InputAction.of(layer) if site == INPUT else LayerAction(method, site, layer)


def _check_effects(method: Method, effects: Effects, layers: Mapping[str, nn.Module] | nn.ModuleDict) -> None:
    strange = sorted(set(effects) - set(layers))
    if strange:
        raise PluginError(f"method {method.name!r} lowers to an effect at {strange[0]!r}, where it has no layer")
    kinds = {type(effect).__name__ for here in effects.values() for effect in here}
    if not kinds <= set(method.traits.effects):
        raise PluginError(
            f"method {method.name!r} lowers to {', '.join(sorted(kinds))}, and its traits name "
            f"{', '.join(method.traits.effects) or 'no effects'}"
        )


def _place(site: Site, model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a site computes, and in what; a quantized weight says nothing of the latter."""
    first = next(iter(site.parameters.values()))
    return first.device, first.dtype if first.is_floating_point() else model.dtype  # type: ignore[return-value]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


class _Layers(nn.ModuleDict):
    """A ModuleDict whose keys may have dots in them, as site names do."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        nn.Module.__init__(self)
        self._modules.update(layers)
