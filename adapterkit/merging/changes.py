"""What one adapter changes at one site, in the one form in which changes are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from adapterkit.effects import Bias, Dense, Effect, LowRank, PrefixKV, Rows, Scale, Tokens
from adapterkit.errors import SelectionError

from .reducing import norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit.sites import Site

__all__ = ["Change", "own_parameter", "read", "read_against", "zero_like"]


@attrs.frozen(eq=False)
class Change:
    """What an adapter adds to a site's parameters, and what cannot be said so.

    Attributes:
        weight: What it adds to the weight, ``(out_features, in_features)``, as a matrix or as factors; None is nothing.
        parameters: What it adds to other parameters, by name, in float32; ``"bias"`` among them.
        rest: Effects that are no sums without the base: scales, rows, virtual tokens, prefixes.
        adds_bias: Whether ``parameters["bias"]`` is added to the output, be there a bias or not.
        embedding: Whether the site is an embedding.
    """

    weight: LowRank | Tensor | None = None
    parameters: Mapping[str, Tensor] = attrs.field(factory=dict)
    rest: tuple[Effect, ...] = ()
    adds_bias: bool = False
    embedding: bool = False

    def kinds(self) -> set[str]:
        """The names of the effects that it is made of."""
        found = {type(one).__name__ for one in self.rest}
        if self.weight is not None:
            found.add("LowRank" if isinstance(self.weight, LowRank) else "Dense")
        return found | ({"Bias" if self.adds_bias else "Dense"} if self.parameters else set())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters that it changes."""
        found = {name: tuple(one.shape) for name, one in self.parameters.items()}
        if isinstance(self.weight, LowRank):
            found["weight"] = (self.weight.up.shape[0], self.weight.down.shape[1])
        elif self.weight is not None:
            found["weight"] = tuple(self.weight.shape)
        return found

    def size(self) -> float:
        """No value of it is larger than this; NaN or infinite where one of them is."""
        parts = [*self.parameters.values(), *([] if self.weight is None else [self.weight])]
        return max((_size(one) for one in parts), default=0.0)


def _size(change: LowRank | Tensor) -> float:
    if isinstance(change, LowRank):
        return abs(change.scale) * norm(change.up) * norm(change.down)
    return norm(change)


def read(effects: Sequence[Effect]) -> Change:
    """Effects as a change, without a base."""
    low = [one for one in effects if isinstance(one, LowRank)]
    dense = [one for one in effects if isinstance(one, Dense)]
    biases = [one.vector for one in effects if isinstance(one, Bias)]
    parameters: dict[str, Tensor] = {}
    for name, tensor in [*((one.parameter, one.delta) for one in dense), *(("bias", one) for one in biases)]:
        wide = tensor.detach().to("cpu", torch.float32)
        parameters[name] = parameters[name] + wide if name in parameters else wide
    is_matrix = "weight" in parameters and parameters["weight"].dim() == 2
    return Change(
        _weight(low, parameters.pop("weight") if is_matrix else None),
        parameters,
        tuple(one for one in effects if not isinstance(one, (LowRank, Dense, Bias))),
        adds_bias=bool(biases) and not any(one.parameter == "bias" for one in dense),
        embedding=any(one.embedding for one in low) or any(one.embedding for one in dense),
    )


def _weight(low: Sequence[LowRank], dense: Tensor | None) -> LowRank | Tensor | None:
    factors = [attrs.evolve(one, down=one.down.detach().cpu(), up=one.up.detach().cpu()) for one in low]
    if not factors:
        return dense
    update = factors[0] if len(factors) == 1 else LowRank.stacked(factors)
    return update if dense is None else dense + update.delta()


def read_against(site: Site, effects: Sequence[Effect]) -> Change:
    """Effects as a change of the parameters of a base's site: its weights after them, less its weights before.

    Raises:
        SelectionError: The site has no weight that they could change.
    """
    embedding = site.kind == "embedding"
    if any(isinstance(one, (Tokens, PrefixKV)) for one in effects):
        return read(effects)
    if len(effects) == 1 and isinstance(effects[0], Rows):
        return Change(_rows(site, effects[0]), embedding=embedding)
    if not any(isinstance(one, (Scale, Rows)) for one in effects):
        change = read(effects)
        if site.kind == "module" and isinstance(change.weight, Tensor):  # such as a router's: no matrix that has a rank
            change = attrs.evolve(change, weight=None, parameters={**change.parameters, "weight": change.weight})
    elif site.kind == "module":
        raise SelectionError(f"{site.name!r} is no layer with one weight, whose outputs could be scaled")
    else:
        change = _followed(site, effects)
    return attrs.evolve(
        change, embedding=embedding, adds_bias="bias" in change.parameters and "bias" not in site.parameters
    )


def own_parameter(site: Site, name: str) -> Tensor | None:
    """The base's own parameter in float32, a layer's weight as ``(out_features, in_features)``; None where it has none."""
    if name == "weight" and site.kind != "module":
        return _weight_of(site)
    parameter = site.parameters.get(name)
    return None if parameter is None else parameter.detach().to("cpu", torch.float32)


def zero_like(change: LowRank | Tensor) -> LowRank | Tensor:
    """The change of nothing: zeros, or an update of no direction."""
    if isinstance(change, LowRank):
        return attrs.evolve(change, down=change.down[:0], up=change.up[:, :0], scale=1.0)
    return torch.zeros_like(change)


def _weight_of(site: Site) -> Tensor:
    return site.dense_weight().detach().to("cpu", torch.float32)


def _rows(site: Site, effect: Rows) -> LowRank:
    """Other rows for n tokens, as an update of n directions: each picks a token, and moves its row."""
    index = effect.index.detach().cpu()
    weight = _weight_of(site)
    is_table = site.kind == "embedding"
    before = weight[:, index].T if is_table else weight[index]
    moved = effect.rows.detach().to("cpu", torch.float32) - before
    picked = functional.one_hot(index, weight.shape[1] if is_table else weight.shape[0]).float()
    return LowRank(picked, moved.T, 1.0) if is_table else LowRank(moved, picked.T, 1.0)


def _followed(site: Site, effects: Sequence[Effect]) -> Change:
    """The same for effects of which one acts on what another has made, such as DoRA's magnitude."""
    weight = _weight_of(site)
    bias = site.parameters.get("bias")
    own_bias = torch.zeros(weight.shape[0]) if bias is None else bias.detach().to("cpu", torch.float32)
    delta, moved = torch.zeros_like(weight), torch.zeros_like(own_bias)
    others: dict[str, Tensor] = {}
    for effect in effects:
        if isinstance(effect, Scale):
            delta, moved = _scaled(effect, (weight, delta), (own_bias, moved))
        elif isinstance(effect, Rows):
            index, rows = effect.index.cpu(), effect.rows.detach().to("cpu", torch.float32)
            table, before = (delta.T, weight.T) if site.kind == "embedding" else (delta, weight)
            table[index] = rows - before[index]
        else:
            change = read([effect])
            if change.weight is not None:
                delta = delta + (change.weight.delta() if isinstance(change.weight, LowRank) else change.weight)
            moved = moved + change.parameters.get("bias", 0.0)
            others |= {name: one for name, one in change.parameters.items() if name != "bias"}
    return Change(delta, others | ({"bias": moved} if bool(moved.any()) else {}))


def _scaled(effect: Scale, weights: tuple[Tensor, Tensor], biases: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias, each as the base's and what was added to it before, with ``effect`` acting on both."""
    (weight, delta), (bias, moved) = weights, biases
    vector = effect.vector.detach().to("cpu", torch.float32)
    if effect.side == "input":  # adds what the base makes of the rest of the input, whatever was added before
        return delta + weight * (vector - 1.0), moved
    return delta * vector[:, None] + weight * (vector - 1.0)[:, None], moved * vector + (
        bias * (vector - 1.0) if effect.bias else torch.zeros_like(bias)
    )
