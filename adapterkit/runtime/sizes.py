"""What a plan takes in memory, beside the base."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor, nn

if TYPE_CHECKING:
    from .actions import Plan

__all__ = ["plan_bytes", "plan_tensors"]


def plan_bytes(plan: Plan, model: nn.Module) -> int:
    """The bytes of all memory that a plan's tensors lie in, each counted once, and none of the base's."""
    return sum({_place(one): one.untyped_storage().nbytes() for one in plan_tensors(plan, model)}.values())


def plan_tensors(plan: Plan, model: nn.Module) -> list[Tensor]:
    """Every tensor that a plan holds on to, wherever in its actions, but for the base's."""
    of_base = {_place(one) for one in (*model.parameters(), *model.buffers())}
    seen = {id(module) for module in model.modules()}
    return [one for one in _tensors(plan, seen) if _place(one) not in of_base]


def _tensors(root: Any, seen: set[int]) -> Iterator[Tensor]:
    """Tensors that can be reached from a value; what is in ``seen`` is not looked into."""
    left = [root]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            yield one
        else:
            left.extend(_inside(one))


def _inside(one: Any) -> Iterable[Any]:
    for kind, look in _LOOKS.items():
        if isinstance(one, kind):
            return look(one)
    return [getattr(one, field.name) for field in attrs.fields(type(one))] if attrs.has(type(one)) else ()


def _place(tensor: Tensor) -> tuple[str, int]:
    return str(tensor.device), tensor.untyped_storage().data_ptr()


_LOOKS: dict[type | tuple[type, ...], Callable[[Any], Iterable[Any]]] = {
    nn.Module: lambda one: vars(one).values(),
    Mapping: lambda one: one.values(),
    (list, tuple, set, frozenset): iter,
    functools.partial: lambda one: (one.func, one.args, one.keywords),
    types.MethodType: lambda one: (one.__self__, one.__func__),
    types.FunctionType: lambda one: (one.__defaults__, one.__closure__),
    types.CellType: lambda one: (one.cell_contents,) if one != types.CellType() else (),
}
"""What is looked into, and how, beside attrs classes."""
