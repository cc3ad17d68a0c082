"""What happens at a site in one forward pass: ``action(x, y)`` replaces the base's output ``y`` for the input ``x``.

``x`` holds token ids at an embedding, and is a tuple where a module takes several inputs, as the experts of a mixture do; those
that it is given by name are in its ``named``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from adapterkit.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = [
    "Action",
    "AddBias",
    "AddDense",
    "AddLowRank",
    "Chain",
    "ChangeParameters",
    "Inputs",
    "LayerAction",
    "Plan",
    "ReplaceColumns",
    "ReplaceRows",
    "ScaleInput",
    "ScaleOutput",
    "rerun",
    "shrink",
    "uniform_plan",
]

Action: TypeAlias = Callable[[Any, Any], Any]
Plan: TypeAlias = Mapping[str, Action]
"""Actions by site name; a site that is not in the plan is the base alone."""


@attrs.frozen(eq=False)
class AddLowRank:
    """``y + up(down(x))``, its scale already in ``up``."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """How many directions it acts in."""
        return self.down.shape[0]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """In ``y``'s dtype."""
        return y + functional.linear(shrink(x, self.down), self.up).to(y.dtype)


def shrink(x: Tensor, down: Tensor) -> Tensor:
    """The input in the directions of ``down``: ``(..., in_features)`` to ``(..., rank)``; token ids for an embedding."""
    if x.is_floating_point():
        return functional.linear(x.to(down.dtype), down)
    return functional.embedding(x, down.T)


@attrs.frozen(eq=False)
class AddDense:
    """``y + delta(x)``, with ``delta`` as ``(out_features, in_features)``."""

    delta: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """In ``y``'s dtype."""
        return y + shrink(x, self.delta).to(y.dtype)


@attrs.frozen(eq=False)
class AddBias:
    """``y + vector``."""

    vector: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - what every action takes
        """In ``y``'s dtype."""
        return y + self.vector.to(y.dtype)


@attrs.frozen(eq=False)
class ScaleOutput:
    """``y * vector``; the base's bias, where one is given, is left out of it."""

    vector: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - what every action takes
        """In ``y``'s dtype."""
        vector = self.vector.to(y.dtype)
        # added to y: a vector of ones changes no bit of it
        return y * vector if self.bias is None else y + (y - self.bias) * (vector - 1.0)


@attrs.frozen(eq=False)
class ScaleInput:
    """``y`` for the input ``x * vector``: adds what the base, without its bias, makes of ``x * (vector - 1)``."""

    vector: Tensor
    module: nn.Module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """In ``y``'s dtype."""
        more: Tensor = self.module.forward(x * (self.vector - 1.0).to(x.dtype))
        bias = getattr(self.module, "bias", None)
        return y + (more if bias is None else more - bias)


@attrs.frozen(eq=False)
class ReplaceRows:
    """An embedding's output, with ``rows`` for the tokens ``index``."""

    index: Tensor
    rows: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """In ``y``'s dtype."""
        hits = x[..., None] == self.index
        mine = self.rows[hits.int().argmax(dim=-1)].to(y.dtype)
        return torch.where(hits.any(dim=-1, keepdim=True), mine, y)


@attrs.frozen(eq=False)
class ReplaceColumns:
    """The head's logits, with those of the tokens ``index`` from other ``rows`` of its weight."""

    index: Tensor
    rows: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """In ``y``'s dtype."""
        bias = None if self.bias is None else self.bias[self.index].to(self.rows.dtype)
        mine = functional.linear(x.to(self.rows.dtype), self.rows, bias)
        return y.index_copy(-1, self.index, mine.to(y.dtype))


@attrs.frozen(eq=False)
class ChangeParameters:
    """The module's own forward, with ``deltas`` added to its parameters."""

    module: nn.Module
    deltas: Mapping[str, Tensor]

    def __call__(self, x: Any, y: Any) -> Any:  # noqa: ARG002 - what every action takes
        """What the module would have returned."""
        return rerun(self.module, {name: getattr(self.module, name) + delta for name, delta in self.deltas.items()}, x)


def rerun(module: nn.Module, parameters: Mapping[str, Tensor], x: Any) -> Any:
    """What ``module`` returns for ``x`` with other parameters; the module itself, which others share, is not touched."""
    twin = copy.copy(module)
    twin.__dict__["_parameters"] = {k: v for k, v in module._parameters.items() if k not in parameters}  # noqa: SLF001
    twin.__dict__.pop("forward", None)  # accelerate puts one there that is bound to the module itself
    twin.__dict__.update(parameters)
    return twin.forward(*(x if isinstance(x, tuple) else (x,)), **getattr(x, "named", {}))


class Inputs(tuple[Any, ...]):  # noqa: SLOT001 - tuples have no slots of their own
    """All inputs of a module, and those that it was given by name."""

    named: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Inputs:
        """Of a call's arguments."""
        made = cls(inputs)
        made.named = named
        return made


@attrs.frozen(eq=False)
class LayerAction:
    """A method's own layer, held to its contract: it returns what replaces ``y``, and leaves ``x`` and ``y`` as they are.

    A layer that wrote into ``x`` would change what other sites are given, and one that returned nothing would be taken for
    one that changes nothing. ``y`` may be overwritten by a layer whose ``overwrites_output`` is true, which has to see for
    itself that it is given all of the site's fresh output, and not a part of something larger.
    """

    method: str
    site: str
    layer: Callable[[Any, Any], Any]

    def __call__(self, x: Any, y: Any) -> Any:
        """The layer's output, in ``y``'s dtype."""
        kept = (x,) if getattr(self.layer, "overwrites_output", False) else (x, y)
        before = _versions(*kept)
        out = self.layer(x, y)
        if _shapes(out) != _shapes(y):
            raise PluginError(
                f"the layer of method {self.method!r} at {self.site!r} returned {_shapes(out)} for an output of shape {_shapes(y)}"
            )
        if _versions(*kept) != before:
            raise PluginError(f"the layer of method {self.method!r} at {self.site!r} changed its input in place")
        return out.to(y.dtype) if isinstance(y, Tensor) else out


def _shapes(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_shapes, value))
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _versions(*values: Any) -> tuple[int, ...]:
    """How often each tensor was written to; unknown in inference mode and to a compiler."""
    if torch.compiler.is_compiling():
        return ()
    flat = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    tensors = [one for one in flat if isinstance(one, Tensor)]
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)  # noqa: SLF001


@attrs.frozen(eq=False)
class Chain:
    """Several actions at one site, each given the last one's output."""

    actions: tuple[Action, ...]

    def __call__(self, x: Any, y: Any) -> Any:
        """Every action in order."""
        for action in self.actions:
            y = action(x, y)
        return y


def uniform_plan(actions: Mapping[str, Sequence[Action]]) -> Plan:
    """The plan of one adapter for the whole batch."""
    return {site: steps[0] if len(steps) == 1 else Chain(tuple(steps)) for site, steps in actions.items()}
