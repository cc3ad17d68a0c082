"""A model that looks to PEFT like the base and is none: PEFT puts its layers into it, and the base stays as it is."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from adapterkit import Site

__all__ = ["ADAPTER", "Injected", "as_linear", "inject", "replica"]

ADAPTER = "default"
"""What PEFT calls the one adapter that its layers hold."""


@attrs.frozen(eq=False)
class Injected:
    """What PEFT made.

    Attributes:
        layers: PEFT's layer at each site.
        shared: What PEFT holds once for all layers, each a module that holds tensors by adapter.
        on_disk: The name of a tensor in PEFT's files, from its name in a layer.
    """

    layers: Mapping[str, nn.Module]
    shared: Mapping[str, nn.Module]
    on_disk: Callable[[str], str]

    def without_memory(self) -> Injected:
        """The same on the meta device."""
        layers, shared = copy.deepcopy((dict(self.layers), dict(self.shared)))
        for module in (*layers.values(), *shared.values()):
            module.to("meta")
        return attrs.evolve(self, layers=layers, shared=shared)


def inject(config: Any, sites: Sequence[Site], *, weights: bool, conv1d: bool) -> Injected:
    """Have PEFT make its layers for ``sites``.

    Args:
        config: PEFT's configuration; its targets are whole names.
        sites: Where to.
        weights: Whether PEFT is shown a copy of the base's weights; otherwise zeros that take no memory.
        conv1d: Whether PEFT is shown GPT-2's layers as they are; otherwise as linear ones.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING

    tree = nn.Module()
    for site in sites:
        _plant(tree, site.name, replica(site, weights=weights, conv1d=conv1d))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each says what PEFT decides by itself, once for each layer
        tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](tree, {ADAPTER: config}, ADAPTER)
    layers = {site.name: _without_base(tree.get_submodule(site.name)) for site in sites}
    shared = {name: one for name, one in tuner.named_children() if name != "model"}
    named = type(tuner)._remove_adapter_name_from_key  # noqa: SLF001
    return Injected(layers, shared, lambda name: named(f".{name}", ADAPTER)[1:])


def _without_base(layer: nn.Module) -> nn.Module:
    del layer._modules["base_layer"]  # noqa: SLF001
    return layer


def replica(site: Site, *, weights: bool, conv1d: bool) -> nn.Module:
    """A layer like the one at ``site``, in float32 and with no hooks; with ``weights``, of the same weights."""
    if site.kind == "module":
        return _copied(site.module)
    as_conv1d = conv1d and site.kind == "conv1d"
    with torch.device("meta"):
        module = _conv1d(site) if as_conv1d else _linear(site)
    for name, parameter in list(module.named_parameters()):
        value = torch.zeros(()).expand(parameter.shape)
        if weights:
            value = site.dense_weight() if name == "weight" else site.parameters[name]
            value = _float_copy(value.T if name == "weight" and as_conv1d else value)
        setattr(module, name, nn.Parameter(value, requires_grad=False))
    return module


def as_linear(site: Site) -> nn.Module:
    """The base's own layer; one of GPT-2's as a linear one, which has the same weights and not a copy of them."""
    if site.kind != "conv1d":
        return site.module
    with torch.device("meta"):
        module = _linear(site)
    for name in dict(module.named_parameters()):
        value = site.weight if name == "weight" else site.parameters[name]
        setattr(module, name, nn.Parameter(value.detach(), requires_grad=False))
    return module


def _linear(site: Site) -> nn.Module:
    return nn.Linear(site.in_features, site.out_features, bias=getattr(site.module, "bias", None) is not None)


def _conv1d(site: Site) -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    made: nn.Module = Conv1D(site.out_features, site.in_features)
    return made


def _copied(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin.__dict__.pop("forward", None)  # accelerate puts one there that is bound to the module itself
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        twin.__dict__[hooks] = OrderedDict()
    twin.__dict__["_parameters"] = {
        name: None if one is None else nn.Parameter(_float_copy(one), requires_grad=False)
        for name, one in module._parameters.items()  # noqa: SLF001
    }
    return twin


def _float_copy(value: Tensor) -> Tensor:
    if torch.get_default_device().type == "meta":
        return torch.empty(value.shape)
    return value.detach().to(torch.float32, copy=True)


def _plant(tree: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in tree._modules:  # noqa: SLF001
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    tree.add_module(last, module)
