"""Several adapters' plans as one: each site's changes added up, each with its adapter's weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch
from torch import Tensor

from adapterkit.errors import SelectionError
from adapterkit.sites import INPUT

from .actions import AddBias, AddDense, AddLowRank, Chain, ChangeParameters, LayerAction, uniform_plan
from .tokens import InputAction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .actions import Action, Plan

__all__ = ["AddChanges", "compose"]

Weight: TypeAlias = float | Tensor
"""A number, or a tensor ``()`` while weights are learned: what is composed has its gradient."""
Weighted: TypeAlias = "tuple[Action, Weight]"


@attrs.frozen(eq=False)
class AddChanges:
    """``y`` plus what each action changes of it, times its weight; none sees what the others have changed."""

    parts: tuple[Weighted, ...]

    def __call__(self, x: Any, y: Any) -> Any:
        """In ``y``'s dtype; the sum is made in float32 at least."""
        outputs = [(action(x, y), weight) for action, weight in self.parts]
        if isinstance(y, tuple):
            columns = [[(out[place], weight) for out, weight in outputs] for place in range(len(y))]
            return tuple(_summed(one, column) for one, column in zip(y, columns, strict=True))
        return _summed(y, outputs)


def _summed(y: Any, outputs: Sequence[tuple[Any, Weight]]) -> Any:
    if not isinstance(y, Tensor) or not y.is_floating_point():
        return y
    wide = y.to(torch.promote_types(y.dtype, torch.float32))
    changes = [(out.to(wide.dtype) - wide) * weight for out, weight in outputs]
    return (wide + torch.stack(changes).sum(0)).to(y.dtype)


def compose(parts: Sequence[tuple[Plan, Weight]]) -> Plan:
    """The plan of several plans that act at once.

    What only adds to an output is added up at once, low-rank factors as one pair; other changes are computed from the base's
    output, one by one.

    Raises:
        SelectionError: A part cannot act beside others, or not with its weight; says why.
    """
    if len(parts) == 1 and _is_one(parts[0][1]):
        return parts[0][0]
    sites = dict.fromkeys(site for plan, _ in parts for site in plan)
    here = {site: [(plan[site], weight) for plan, weight in parts if site in plan] for site in sites}
    made: dict[str, list[Action]] = {site: _composed(site, actions) for site, actions in here.items() if site != INPUT}
    if INPUT in here:
        made[INPUT] = [_input(here[INPUT])]
    return uniform_plan(made)


def _composed(site: str, parts: Sequence[Weighted]) -> list[Action]:
    for action, _ in parts:
        for step in _steps(action):
            if isinstance(step, LayerAction):
                raise SelectionError(
                    f"method {step.method!r} acts through its own layers and not by effects: at {site!r} it can act alone, and "
                    "not beside another adapter or with a weight"
                )
    if all(isinstance(action, ChangeParameters) for action, _ in parts):
        return [_changed(parts)]
    additive = [(step, weight) for action, weight in parts if _is_additive(action) for step in _steps(action)]
    others = tuple((action, weight) for action, weight in parts if not _is_additive(action))
    # the others first: theirs are changes of the base's own output
    return [*([AddChanges(others)] if others else []), *_added(additive)]


def _steps(action: Action) -> tuple[Action, ...]:
    return action.actions if isinstance(action, Chain) else (action,)


def _is_additive(action: Action) -> bool:
    return all(isinstance(step, (AddLowRank, AddDense, AddBias)) for step in _steps(action))


def _added(parts: Sequence[Weighted]) -> list[Action]:
    """What adds to an output, with each weight in it."""
    low = [(step, weight) for step, weight in parts if isinstance(step, AddLowRank)]
    made: list[Action] = []
    if low:
        down = torch.cat([step.down for step, _ in low])
        made.append(AddLowRank(down, torch.cat([_times(step.up, weight) for step, weight in low], dim=1)))
    dense = [_times(step.delta, weight) for step, weight in parts if isinstance(step, AddDense)]
    bias = [_times(step.vector, weight) for step, weight in parts if isinstance(step, AddBias)]
    made += [AddDense(_sum(dense))] if dense else []
    made += [AddBias(_sum(bias))] if bias else []
    return made


def _changed(parts: Sequence[Weighted]) -> ChangeParameters:
    deltas: dict[str, list[Tensor]] = {}
    for action, weight in parts:
        for name, delta in action.deltas.items():  # type: ignore[attr-defined]
            deltas.setdefault(name, []).append(_times(delta, weight))
    return ChangeParameters(parts[0][0].module, {name: _sum(one) for name, one in deltas.items()})  # type: ignore[attr-defined]


def _is_one(weight: Weight) -> bool:
    return not isinstance(weight, Tensor) and weight == 1.0


def _times(tensor: Tensor, weight: Weight) -> Tensor:
    if _is_one(weight):
        return tensor
    return _finite((tensor.to(torch.promote_types(tensor.dtype, torch.float32)) * weight).to(tensor.dtype))


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    return _finite(torch.stack([one.to(wide) for one in tensors]).sum(0).to(tensors[0].dtype))


def _finite(tensor: Tensor) -> Tensor:
    """The same.

    Raises:
        SelectionError: A number is infinite, and would reach other rows too: zero times infinity is no number.
    """
    if not tensor.requires_grad and not torch.isfinite(tensor).all():
        raise SelectionError(f"with their weights, the changes of these adapters are too large for {tensor.dtype}")
    return tensor


def _input(parts: Sequence[Weighted]) -> InputAction:
    """Virtual tokens one after another in the order of the parts, and prefixes likewise before all tokens."""
    for _, weight in parts:
        if not _is_one(weight):
            raise SelectionError(f"a soft prompt or a prefix is there or is not: its weight is 1, and not {weight:g}")
    actions: list[Any] = [action for action, _ in parts]
    prefixes = [action.prefix for action in actions if action.prefix is not None]

    def table() -> Tensor:
        tables = [own for own in (action.table() for action in actions) if len(own)]
        return torch.cat(tables) if tables else actions[0].table()

    def prefix(count: int) -> tuple[Tensor, Tensor]:
        keys, values = zip(*(one(count) for one in prefixes), strict=True)
        return torch.cat(keys, dim=3), torch.cat(values, dim=3)

    return InputAction(table, prefix if prefixes else None, sum(action.prefix_length for action in actions))
