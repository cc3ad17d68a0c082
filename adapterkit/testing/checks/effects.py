"""Effects: what ``lower`` says is what the layers do, and what ``traits`` says is what ``lower`` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.errors import AdapterkitError
from adapterkit.testing.comparing import answers, own_plan, require_close
from adapterkit.testing.models import FAMILIES
from adapterkit.testing.outcomes import DoesNotApply, require
from adapterkit.testing.words import some_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.base import Base
    from adapterkit.testing.subject import Subject

__all__ = [
    "effects_are_those_promised",
    "every_option_is_served_as_trained",
    "lowered_acts_as_trained",
    "what_is_kept_acts_as_what_was_trained",
]


def what_is_kept_acts_as_what_was_trained(subject: Subject) -> None:
    """The layers that ``finish`` keeps act as the trained ones did, in evaluation mode.

    Else the adapter that was trained is not the one that is saved.
    """
    base, ids = subject.base(), some_ids()
    seen = subject.train(base)
    require_close(
        answers(base, own_plan(subject.name, seen.kept), ids),
        answers(base, own_plan(subject.name, seen.trained), ids),
        "what finish keeps acts otherwise than what was trained",
    )


def lowered_acts_as_trained(subject: Subject) -> None:
    """The effects that ``lower`` gives act as the layers' own ``forward`` does, in evaluation mode.

    Answers come from the effects, so a scale that is forgotten there trains one adapter and serves another.
    """
    base, ids = subject.base(), some_ids()
    seen = subject.train(base)
    if subject.registry.call("lower", subject.method, layers=seen.kept) is None:
        raise DoesNotApply("the method is not lowered: it acts through its own layers")
    require_close(
        base.logits(ids, adapter=seen.adapter),
        answers(base, own_plan(subject.name, seen.kept), ids),
        "the effects that lower gives act otherwise than the layers do",
    )


def every_option_is_served_as_trained(subject: Subject) -> None:
    """With each flag turned and each choice made, one at a time, the adapter that is served is the one that was trained.

    Options that a method refuses together are left out, as are those whose values cannot be told from their annotations.
    """
    ids = some_ids()
    tried = 0
    for change in subject.variants():
        base = subject.base()
        try:
            seen = subject.train(base, max_steps=2, **change)
        except AdapterkitError:  # refused by name
            continue
        tried += 1
        said = ", ".join(f"{name}={value!r}" for name, value in change.items())
        require_close(
            base.logits(ids, adapter=seen.adapter),
            answers(base, own_plan(subject.name, seen.trained), ids),
            f"with {said}, the adapter is served otherwise than it was trained",
        )
    if not tried:
        raise DoesNotApply("the method has no flags and no choices")


def effects_are_those_promised(subject: Subject) -> None:
    """``lower`` gives effects of the kinds that ``traits.effects`` names, all of them and no others; none where it names none.

    Listings, merges and engines go by what is named: a kind too many is a promise that is not kept, a kind too few is refused
    when somebody loads the adapter. It is looked at on every kind of base, with each flag turned and each choice made.
    """
    promised = set(subject.method.traits.effects)
    found: set[str] = set()
    for family in FAMILIES:
        base = subject.base(family)
        for change in ({}, *subject.variants()):
            found |= _kinds(subject, base, change)
    given, named = (", ".join(sorted(kinds)) or "none" for kinds in (found, promised))
    require(
        found == promised,
        f"lower gives effects of the kinds {given}, and traits.effects names {named}: name what is given, no more and no less",
    )


def _kinds(subject: Subject, base: Base, change: Mapping[str, Any]) -> set[str]:
    try:
        config, layers = subject.config(base, **change), subject.layers(base, **change)
    except AdapterkitError:  # refused by name, or names of another family
        return set()
    _, kept = subject.registry.call("finish", subject.method, config=config, layers=dict(layers.items()))
    effects = subject.registry.call("lower", subject.method, layers=dict(kept.items())) or {}
    return {type(effect).__name__ for here in effects.values() for effect in here}
