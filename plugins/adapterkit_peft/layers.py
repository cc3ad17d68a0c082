"""PEFT's layers at adapterkit's sites: given a layer's input and output, they return what replaces the output."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .skeleton import as_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from adapterkit import Site

    from .catalogue import Kind
    from .skeleton import Injected

__all__ = ["SharedLayer", "TunerLayer", "assemble"]


class _Renamed(nn.Module):
    """Calls its tensors what PEFT's files call them, and leaves out what they do not hold."""

    def __init__(self) -> None:
        super().__init__()
        self._on_disk: dict[str, str] = {}
        self._unsaved: tuple[str, ...] = ()
        self.register_state_dict_post_hook(_rename)
        self.register_load_state_dict_pre_hook(_rename_back)

    def take_names(self, on_disk: Callable[[str], str], unsaved: Iterable[str] = ()) -> None:
        """Decide what each tensor is called; called once, when everything is in its place."""
        names = list(self.state_dict())
        self._on_disk = {name: on_disk(name.partition(".")[2]) for name in names}
        self._unsaved = tuple(name for name in names if name.split(".")[1] in set(unsaved))


def _rename(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:  # noqa: ARG001 - torch's hook
    for name, other in module._on_disk.items():  # noqa: SLF001
        value = state.pop(prefix + name)
        if name not in module._unsaved:  # noqa: SLF001
            state[prefix + other] = value


def _rename_back(module: Any, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:  # noqa: ARG001 - torch's hook
    for name, other in module._on_disk.items():  # noqa: SLF001
        if name in module._unsaved:  # noqa: SLF001
            state[prefix + name] = functools.reduce(getattr, name.split("."), module)
        elif prefix + other in state:
            state[prefix + name] = state.pop(prefix + other)


class TunerLayer(_Renamed):
    """One of PEFT's layers, with the base's layer taken out of it.

    PEFT's layer calls the base's with its input, and mostly with nothing else: it is given the output that is there already.
    Only what it computes of another input, as OFT does of a rotated one, is computed by the base's layer once more.
    """

    def __init__(self, tuner: Any, site: Site, shared: Mapping[str, nn.Module], kind: Kind) -> None:
        super().__init__()
        for name in {"base_layer", *shared} & set(tuner._modules):  # noqa: SLF001
            held = tuner._modules.pop(name)  # noqa: SLF001
            if name in shared:  # held by the shared layer; here it is only looked into
                tuner.__dict__[name] = held
        self.tuner = tuner
        self.site, self._kind = site, kind
        self._base_layer = [site.module if kind.conv1d else as_linear(site)]  # in a list: it is no part of this module

    def forward(self, x: Any, y: Tensor) -> Tensor:
        """PEFT's output, computed in float32 where the base computes in less."""
        return self.over(self._base_layer[0], x, y)

    def over(self, base_layer: nn.Module, x: Any, y: Tensor) -> Tensor:
        """The same where ``base_layer``, which gives ``y`` for ``x``, is the base's layer."""
        wide, known = _widen(x), _widen(y)
        given = _given(base_layer, x, wide, known.clone() if self._kind.writes and known is y else known)
        tuner = copy.copy(self.tuner)  # several threads may use this one
        tuner.__dict__["base_layer"] = given
        out: Tensor = tuner(wide, **self._arguments(wide))
        return out

    def _arguments(self, x: Tensor) -> dict[str, Any]:
        """What PEFT's layer is told beside its input: Poly's the task of each row, of which there is one."""
        routed = hasattr(self.tuner, "poly_router")
        return {"task_ids": torch.zeros(len(x), dtype=torch.long, device=x.device)} if routed else {}


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() and value.dtype.itemsize < 4 else value


def _given(module: nn.Module, x: Any, wide: Tensor, y: Tensor) -> nn.Module:
    """The base's layer as PEFT's sees it: of the same kind, weights and all, and its output for ``wide`` is known."""
    twin: nn.Module = _given_class(type(module)).__new__(_given_class(type(module)))
    twin.__dict__.update(module.__dict__)
    twin.__dict__.update(_original=module, _narrow=x, _wide=wide, _known=y)
    return twin


@functools.cache
def _given_class(cls: type) -> type[nn.Module]:
    def call(self: Any, x: Tensor) -> Tensor:
        if x is self._wide:
            return self._known  # type: ignore[no-any-return]
        narrow = self._narrow.dtype
        return self._original.forward(x.to(narrow)).to(x.dtype)  # type: ignore[no-any-return]

    return type(f"Given{cls.__name__}", (cls,), {"__call__": call})


class SharedLayer(_Renamed):
    """What several layers share, held once."""

    def __init__(self, shared: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.held = nn.Module()
        for name, module in shared.items():
            self.held.add_module(name, module)


def assemble(
    made: Injected, sites: Mapping[str, Site], kind: Kind
) -> tuple[dict[str, TunerLayer], SharedLayer | None]:
    """PEFT's layers as layers of a method, and what they share."""
    layers = {}
    for name, tuner in made.layers.items():
        layers[name] = TunerLayer(tuner, sites[name], made.shared, kind)
        layers[name].take_names(made.on_disk, kind.unsaved)
    if not made.shared:
        return layers, None
    shared = SharedLayer(made.shared)
    shared.take_names(made.on_disk)
    return layers, shared
