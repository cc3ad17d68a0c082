"""The algebra: what ``effects`` and ``express`` say without a base is what happens on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adapterkit.adapter import Adapter
from adapterkit.errors import AdapterkitError
from adapterkit.resident import effects_of, expected_tensors
from adapterkit.testing.comparing import CLOSE, changed, changes, distance, require_close
from adapterkit.testing.models import FAMILIES
from adapterkit.testing.outcomes import DoesNotApply, require
from adapterkit.testing.words import some_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from adapterkit.base import Base
    from adapterkit.effects import Effects
    from adapterkit.testing.subject import Subject

__all__ = ["effects_are_the_same_without_the_base", "what_is_expressed_acts_the_same"]

SIZE = 0.1
"""The standard deviation of the numbers in adapters that were never trained."""


def effects_are_the_same_without_the_base(subject: Subject) -> None:
    """What ``effects`` says of an adapter's configuration and tensors is what ``lower`` says of its layers on a base, or None.

    Adapters are merged by it with no base in memory: a scale that is taken from another option there gives a merge that is
    wrong without a word. It is looked at on every kind of base, with each flag turned and each choice made.
    """
    for base, adapter, effects in _adapters(subject):
        _require_same(
            effects, effects_of(subject.registry, adapter, base.sites), f"with {adapter.config}, effects says"
        )


def what_is_expressed_acts_the_same(subject: Subject) -> None:
    """The adapter that ``express`` makes of an adapter's effects answers as that adapter does, and has the same effects.

    What is merged is saved so. It is looked at on every kind of base, with each flag turned and each choice made.
    """
    ids, found = some_ids(2), False
    for base, adapter, effects in _adapters(subject):
        made = subject.method.express(effects)
        if made is None:
            continue
        found, (config, tensors) = True, made
        said = f"of effects of an adapter with {adapter.config}, express makes one"
        again = Adapter(adapter.method, config, tensors, adapter.manifest)
        expected = expected_tensors(subject.registry, subject.method, config, base.sites)
        got = {name: tuple(tensor.shape) for name, tensor in again.tensors.items()}
        different = changed(expected, got)
        require(not different, f"{said} that does not fit the base: {', '.join(different[:3])}")
        require_close(base.logits(ids, adapter=again), base.logits(ids, adapter=adapter), f"{said} that acts otherwise")
        _require_same(subject.method.effects(config, again.tensors) or {}, effects, f"{said} whose effects say")
    if not found:
        raise DoesNotApply("express makes no adapter")


def _adapters(subject: Subject) -> Iterator[tuple[Base, Adapter, Effects]]:
    """Adapters of which ``effects`` says something, with all numbers in them random, and bases that they fit.

    Raises:
        DoesNotApply: There are none.
    """
    found = False
    for family in FAMILIES:
        base = subject.base(family)
        for change in ({}, *subject.variants()):
            adapter = _random_adapter(subject, base, change)
            effects = None if adapter is None else subject.method.effects(adapter.config, adapter.tensors)
            if adapter is not None and effects is not None:
                found = True
                yield base, adapter, effects
    if not found:
        raise DoesNotApply("effects says nothing without the base")


def _random_adapter(subject: Subject, base: Base, change: Mapping[str, Any]) -> Adapter | None:
    """An adapter as it is kept after training, with random numbers; None where it is refused by name."""
    try:
        config, layers = subject.config(base, **change), subject.layers(base, **change)
    except AdapterkitError:
        return None
    config, _ = subject.registry.call("finish", subject.method, config=config, layers=dict(layers.items()))
    stream, shapes = (
        torch.Generator().manual_seed(0),
        expected_tensors(subject.registry, subject.method, config, base.sites),
    )
    tensors = {name: torch.randn(shape, generator=stream) * SIZE for name, shape in shapes.items()}
    return Adapter(subject.name, config, tensors)


def _require_same(one: Effects, other: Effects, said: str) -> None:
    """Raise unless two ways to say what an adapter does say the same but for rounding."""
    mine, theirs = changes(one), changes(other)
    different = sorted(name for name in {*mine, *theirs} if name not in mine or name not in theirs)
    different = different or [
        name
        for name in sorted(mine)
        if mine[name].shape != theirs[name].shape or distance(mine[name], theirs[name]) > CLOSE
    ]
    require(not different, f"{said} something else than lower: {', '.join(different[:3])}")
