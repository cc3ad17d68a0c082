"""From effects back to an adapter: the first method that has one which does exactly this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.effects import Dense, LowRank, PrefixKV, Rows, Tokens
from adapterkit.errors import ConfigError, SelectionError, TargetError
from adapterkit.resident import build_layers, flatten
from adapterkit.sites import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from adapterkit.base import Base
    from adapterkit.contracts import Method
    from adapterkit.effects import Effect, Effects
    from adapterkit.registry import Registry

__all__ = ["Wanted", "express"]

Made = tuple[Any, "Mapping[str, Tensor]"]


@attrs.frozen(eq=False)
class Wanted:
    """What an adapter is to do.

    Attributes:
        effects: By site.
        methods: The methods whose adapters acted at each site.
        borrowed: Sites that are to do the same as others, whose weight they share, and these others.
        base: Where it is to act, so that it is seen to fit.
    """

    effects: Effects
    methods: Mapping[str, set[str]]
    borrowed: Mapping[str, str]
    base: Base | None

    def tables(self) -> list[str]:
        """The sites that are embeddings, as far as their effects say so."""
        return [site for site, here in self.effects.items() if any(map(_is_of_table, here))]


def express(registry: Registry, wanted: Wanted, first: Sequence[str]) -> tuple[Method, Any, Mapping[str, Tensor]]:
    """The method, configuration and tensors of an adapter that does exactly this, the methods called ``first`` tried first.

    Raises:
        SelectionError: No method has such an adapter.
    """
    kinds = sorted({type(one).__name__ for here in wanted.effects.values() for one in here})
    for method in _in_order(registry, first, kinds):
        for effects in _said(wanted):
            made = method.express(effects)
            if made is not None and _is_certain(registry, method, made, wanted):
                return (method, *made)
    at_input = sorted(
        set().union(*(wanted.methods[site] for site, here in wanted.effects.items() if any(map(_leads, here))))
    )
    if at_input and len(at_input) < len(set(first)):
        raise SelectionError(
            f"what {' and '.join(map(repr, at_input))} trains stands before the sequence, as a soft prompt or a prefix, and is no "
            "change of weights: use the adapters together as a Stack"
        )
    raise SelectionError(
        f"no method has an adapter that acts by {' and '.join(kinds)} at the sites of all of these: {_cure(wanted, kinds)}"
    )


def _cure(wanted: Wanted, kinds: Sequence[str]) -> str:
    tables = wanted.tables()
    if tables and wanted.base is None:
        return f"whether a head shares the weight of {tables[0]!r} is for the base to say: give base=…"
    whole = [one for here in wanted.effects.values() for one in here if isinstance(one, Dense)]
    only_weights = set(kinds) <= {"Dense", "LowRank"} and all(one.parameter == "weight" for one in whole)
    rank = "give a rank, or " if whole and only_weights else ""
    return f"{rank}use them together as a Stack or a Blend"


def _in_order(registry: Registry, first: Sequence[str], kinds: Sequence[str]) -> Iterator[Method]:
    """Methods whose own effects are of these kinds, before those that make others of them, such as whole changes of factors."""
    fitting = [one for one in map(registry.method, dict.fromkeys(first)) if set(kinds) <= set(one.traits.effects)]
    yield from fitting
    every = sorted(registry.methods(), key=lambda one: first.index(one.name) if one.name in first else len(first))
    yield from sorted(
        (one for one in every if one not in fitting), key=lambda one: not set(kinds) <= set(one.traits.effects)
    )


def _said(wanted: Wanted) -> list[Effects]:
    """The effects, for methods that change both of two layers that share a weight; and with both, for those that do not."""
    both = {site: tuple(map(_turned, wanted.effects[owner])) for site, owner in wanted.borrowed.items()}
    return [wanted.effects, {**wanted.effects, **both}] if both else [wanted.effects]


def _turned(effect: Effect) -> Effect:
    """The same at a head, of an effect at the embedding that has its weight."""
    if isinstance(effect, LowRank):
        return LowRank(effect.up.T, effect.down.T, effect.scale)
    return Dense(effect.delta.T) if isinstance(effect, Dense) else effect


def _leads(effect: Effect) -> bool:
    return isinstance(effect, (Tokens, PrefixKV))


def _is_of_table(effect: Effect) -> bool:
    return isinstance(effect, Rows) or bool(getattr(effect, "embedding", False))


def _is_certain(registry: Registry, method: Method, made: Made, wanted: Wanted) -> bool:
    """Whether the adapter acts at these sites and at no other.

    Methods differ in what becomes of a head that shares the weight of an embedding. The base says what they build; without it an
    embedding is left to the method of those that changed it.
    """
    if wanted.base is None:
        return all(wanted.methods.get(site) == {method.name} for site in wanted.tables())
    config, tensors = made
    try:
        with torch.device("meta"):
            layers = build_layers(registry, method, config, wanted.base.sites)
    except (ConfigError, TargetError):
        return False
    expected = {name: tensor.shape for name, tensor in flatten(layers).items()}
    return expected == {name: tensor.shape for name, tensor in tensors.items()} and set(layers) - {SHARED} == {
        *wanted.effects,
        *wanted.borrowed,
    }
