"""What is merged: the adapters with their weights, and what can be seen to be wrong before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.adapter import Adapter
from adapterkit.artifact.manifest import BaseReference
from adapterkit.compose import MOST_PARTS, Blend, is_finite, not_acting
from adapterkit.fingerprint import same_base

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.base import Base

__all__ = ["Parent", "base_of", "gather", "other_bases"]


LARGEST = 1e30
"""The largest weight: beyond it changes leave the range of float32."""


@attrs.frozen(eq=False)
class Parent:
    """An adapter and its weight."""

    adapter: Adapter
    weight: float

    def __str__(self) -> str:
        return f"the {self.adapter.method} adapter {self.adapter.digest[:12]}"


def gather(adapters: Any, weights: Any) -> tuple[tuple[Parent, ...], list[str]]:
    """The parents, blends taken apart and their weights multiplied, and one line for each thing that is wrong."""
    if isinstance(adapters, Mapping):
        return (), [f"adapters: a list of adapters, or Blend({{cards: 0.7, tone: 0.3}}), not {adapters!r:.200}"]
    if isinstance(weights, (Adapter, Blend)):
        return (), ["adapters: go into a list: merge([cards, tone])"]
    given = list(adapters) if isinstance(adapters, Iterable) and not isinstance(adapters, str) else [adapters]
    strange = [f"adapters: {not_acting(one)}" for one in given if not isinstance(one, (Adapter, Blend))]
    if not given:
        strange.append("adapters: there are none to merge")
    if weights is None:
        weights = [1.0] * len(given)
    numbers = list(weights) if isinstance(weights, Iterable) else [weights]
    strange += [f"weights: {one!r:.50} is no finite number" for one in numbers if not is_finite(one)]
    if len(numbers) != len(given):
        strange.append(f"weights: {len(numbers)} for {len(given)} adapters; give one for each")
    elif given and not any(numbers):
        strange.append("weights: all are 0, and nothing would be left")
    if strange:
        return (), strange
    parts = [
        (one.parts if isinstance(one, Blend) else ((one, 1.0),), weight)
        for one, weight in zip(given, numbers, strict=True)
    ]
    parents = tuple(Parent(adapter, float(weight) * own) for inner, weight in parts for adapter, own in inner)
    return parents, _wrong(parents)


def _wrong(parents: Sequence[Parent]) -> list[str]:
    found = [
        f"adapters: {one} is there twice; give it one weight"
        for number, one in enumerate(parents)
        if one.adapter in [other.adapter for other in parents[:number]]
    ]
    found += [f"weights: {one.weight:g} is more than {LARGEST:g}" for one in parents if abs(one.weight) > LARGEST]
    if len(parents) > MOST_PARTS:
        found.append(f"adapters: {len(parents)} are more than the {MOST_PARTS} that may be merged at once")
    return found


def other_bases(parents: Sequence[Parent], base: Base | None) -> list[str]:
    """One line for each adapter that was made for another base than the first one, or than the one that is given."""
    if base is not None:
        known, whose = base.reference.fingerprint, "the base that is given"
    else:
        first = next((one for one in parents if one.adapter.manifest.base.fingerprint), None)
        known, whose = (first.adapter.manifest.base.fingerprint, str(first)) if first is not None else ("", "")
    return [
        f"adapters: {one} was made for another base than {whose}"
        for one in parents
        if known
        and one.adapter.manifest.base.fingerprint
        and not same_base(one.adapter.manifest.base.fingerprint, known)
    ]


def base_of(parents: Sequence[Parent], base: Base | None) -> BaseReference:
    """The base that the merged adapter is for: the one that is given, else the parents', as far as they know it."""
    if base is not None:
        return base.reference
    references = [one.adapter.manifest.base for one in parents]
    named = [one for one in references if one.name]
    return next((one for one in references if one.fingerprint), named[0] if named else BaseReference())
