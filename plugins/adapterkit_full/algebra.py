"""Differences without a base: as effects, and from effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import INPUT, Bias, Dense, LowRank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from adapterkit import Effect, Effects

__all__ = ["PREFIX", "TABLE", "effects_of", "expressed", "parameter_of"]

PREFIX = "delta_"
"""What stands before the name of a parameter in the name of its difference."""
TABLE = "embedding_delta"
"""What the difference of an embedding's table is called, which is the transpose of a weight."""


def effects_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Effect, ...]]:
    """A Dense for each difference.

    Raises:
        ValueError: A tensor is none.
    """
    found: dict[str, tuple[Effect, ...]] = {}
    for name, tensor in tensors.items():
        site, _, own = name.rpartition(".")
        if not site or not (own.startswith(PREFIX) or (own == TABLE and tensor.dim() == 2)):
            raise ValueError(f"{name!r:.200} is no difference of a parameter")
        one = Dense(tensor.T, embedding=True) if own == TABLE else Dense(tensor, own.removeprefix(PREFIX))
        found[site] = (*found.get(site, ()), one)
    return found


def expressed(effects: Effects) -> dict[str, Tensor] | None:
    """The differences, in float32; None where an effect does more than to add to parameters."""
    sums: dict[str, Tensor] = {}
    for site, here in effects.items():
        for one in here:
            if site == INPUT or not isinstance(one, (Bias, Dense, LowRank)):
                return None
            name, delta = _difference(one)
            key = f"{site}.{name}"
            sums[key] = sums[key] + delta if key in sums else delta
    return {name: sums[name].contiguous() for name in sorted(sums)} or None


def _difference(effect: Bias | Dense | LowRank) -> tuple[str, Tensor]:
    """What an effect adds, and what that is called."""
    if isinstance(effect, Bias):
        return f"{PREFIX}bias", effect.vector.float()
    delta = effect.delta() if isinstance(effect, LowRank) else effect.delta.float()
    if effect.embedding and not (isinstance(effect, Dense) and effect.parameter != "weight"):
        return TABLE, delta.T
    return PREFIX + (effect.parameter if isinstance(effect, Dense) else "weight"), delta


def parameter_of(name: str) -> str:
    """The whole name of the parameter that a tensor is the difference of."""
    site, _, own = name.rpartition(".")
    return f"{site}.weight" if own == TABLE else f"{site}.{own.removeprefix(PREFIX)}"
