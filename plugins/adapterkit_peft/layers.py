"""PEFT's layers at adapterkit's sites: given a layer's input and output, they return what replaces the output."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .skeleton import as_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapterkit import Site

    from .catalogue import Kind
    from .skeleton import Injected

__all__ = ["SharedLayer", "TunerLayer", "assemble"]


class _Renamed(nn.Module):
    """Holds modules of PEFT's, whose tensors are called here what PEFT's files call them.

    ``later`` makes the same modules in memory when tensors are loaded into them: what no file holds is computed then.
    """

    def __init__(self, on_disk: Callable[[str], str], later: Callable[[], Injected] | None) -> None:
        super().__init__()
        self._to_disk, self._later = on_disk, later
        self._on_disk: dict[str, str] = {}
        hooks: Any = self  # torch does not say what these take
        hooks.register_state_dict_post_hook(_rename)
        hooks.register_load_state_dict_pre_hook(_load)

    def take(self, made: Injected) -> None:
        """Hold what PEFT made, and learn what it is called."""
        self._on_disk = {}
        self._hold(made)
        if self._later is not None:
            _forget_what_no_file_holds(self)
        self._on_disk = {name: self._to_disk(name.partition(".")[2]) for name in self.state_dict()}

    def renew(self) -> None:
        """Hold modules in memory, where they were without."""
        if self._later is not None:
            later, self._later = self._later, None
            self.take(later())

    def _hold(self, made: Injected) -> None:
        raise NotImplementedError


def _rename(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:  # noqa: ARG001 - torch's hook
    for name, other in module._on_disk.items():  # noqa: SLF001
        state[prefix + other] = state.pop(prefix + name)


def _load(module: Any, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:  # noqa: ARG001 - torch's hook
    module.renew()
    for name, other in module._on_disk.items():  # noqa: SLF001
        if prefix + other in state:
            state[prefix + name] = state.pop(prefix + other)


def _forget_what_no_file_holds(module: nn.Module) -> None:
    for one in module.modules():
        for name in one._non_persistent_buffers_set & set(one._buffers):  # noqa: SLF001
            del one._buffers[name]  # noqa: SLF001


class TunerLayer(_Renamed):
    """One of PEFT's layers, with the base's layer taken out of it.

    PEFT's layer calls the base's with its input, and mostly with nothing else: it is given the output that is there already.
    Only what it computes of another input, as OFT does of a rotated one, is computed by the base's layer once more.
    """

    def __init__(
        self, site: Site, kind: Kind, on_disk: Callable[[str], str], later: Callable[[], Injected] | None
    ) -> None:
        super().__init__(on_disk, later)
        self.site, self._kind = site, kind
        self._base_layer = [site.module if kind.conv1d else as_linear(site)]  # in a list: it is no part of this module
        self.tuner: Any = nn.Module()

    def _hold(self, made: Injected) -> None:
        tuner = made.layers[self.site.name]
        for name in set(made.shared) & set(tuner._modules):  # noqa: SLF001
            # held by the shared layer; here it is only looked into
            tuner.__dict__[name] = tuner._modules.pop(name)  # noqa: SLF001
        self.tuner = tuner.train(self.training)

    def forward(self, x: Any, y: Tensor) -> Tensor:
        """PEFT's output, computed in float32 where the base computes in less."""
        if self._kind.rows and y.dim() == 2:  # tokens without their rows, as in a mixture of experts
            return self.over(self._base_layer[0], x[None], y[None])[0]
        return self.over(self._base_layer[0], x, y)

    def over(self, base_layer: nn.Module, x: Any, y: Tensor) -> Tensor:
        """The same where ``base_layer``, which gives ``y`` for ``x``, is the base's layer."""
        wide, known = _widen(x), _widen(y)
        given = _given(base_layer, x, wide, known.clone() if self._kind.writes and known is y else known)
        if base_layer is self.site.module and self.site.is_quantized:
            given.__dict__["_parameters"] = _of_shape(self.site, wide.device)
        elif "forward" in self._kind.reads and wide is not x:
            weights = base_layer._parameters.items()  # noqa: SLF001
            given.__dict__["_parameters"] = {name: one if one is None else one.float() for name, one in weights}
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


def _of_shape(site: Site, device: torch.device) -> dict[str, Any]:
    """A weight that takes no memory: some layers look at its shape, and a packed one has another."""
    weight = torch.zeros((), device=device).expand(site.out_features, site.in_features)
    own = site.module._parameters  # noqa: SLF001 - a bias that is None stands there too
    return {**own, "weight": nn.Parameter(weight, requires_grad=False)}


def _given(module: nn.Module, x: Any, wide: Tensor, y: Tensor) -> nn.Module:
    """The base's layer as PEFT's sees it: of the same kind, weights and all, and its output for ``wide`` is known."""
    kind: Any = type(module)
    cls = _given_class(kind)
    twin = cls.__new__(cls)
    twin.__dict__.update(module.__dict__)
    twin.__dict__.update(_original=module, _narrow=x, _wide=wide, _known=y)
    return twin


@functools.cache
def _given_class(cls: type[nn.Module]) -> type[nn.Module]:
    def call(self: Any, x: Tensor) -> Tensor:
        if x is self._wide:
            return self._known  # type: ignore[no-any-return]
        # forward, not a call: the site's hook would begin once more
        return self._original.forward(x.to(self._narrow.dtype)).to(x.dtype)  # type: ignore[no-any-return]

    return type(f"Given{cls.__name__}", (cls,), {"__call__": call})


class SharedLayer(_Renamed):
    """What several layers share, held once."""

    def __init__(self, on_disk: Callable[[str], str], later: Callable[[], Injected] | None) -> None:
        super().__init__(on_disk, later)
        self.held = nn.Module()

    def _hold(self, made: Injected) -> None:
        self.held = nn.Module()
        for name, module in made.shared.items():
            self.held.add_module(name, module)


def assemble(
    made: Injected, sites: Mapping[str, Site], kind: Kind, later: Callable[[], Injected] | None
) -> tuple[dict[str, TunerLayer], SharedLayer | None]:
    """PEFT's layers as layers of a method, and what they share."""
    layers = {name: TunerLayer(sites[name], kind, made.on_disk, later) for name in made.layers}
    shared = SharedLayer(made.on_disk, later) if made.shared else None
    for layer in (*layers.values(), *([shared] if shared is not None else [])):
        layer.take(made)
    return layers, shared
