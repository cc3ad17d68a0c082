"""Answers: a row's depends on its own adapter and tokens, and on nothing around them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapterkit.runtime import InputAction
from adapterkit.runtime.actions import Chain
from adapterkit.sites import INPUT
from adapterkit.testing.comparing import CLOSE, answers, distance, own_plan, require_close
from adapterkit.testing.outcomes import DoesNotApply, require
from adapterkit.testing.words import some_ids

if TYPE_CHECKING:
    from adapterkit.base import Base
    from adapterkit.runtime import Action, Plan
    from adapterkit.testing.subject import Subject

__all__ = [
    "a_fresh_adapter_changes_nothing",
    "a_trained_adapter_changes_answers",
    "cached_answers_are_the_same",
    "padding_changes_nothing",
    "rows_are_answered_as_alone",
    "stacked_in_either_order",
    "swapping_leaves_nothing_behind",
    "threads_do_not_meet",
]

PLAINLY = 1e-3
NEW = 6
"""Tokens that are generated."""


def a_fresh_adapter_changes_nothing(subject: Subject) -> None:
    """With the trait ``identity_start``, an adapter before its first step changes no bit of any answer.

    Training then starts from what the base can do. It is looked at after ``initialize``.
    """
    if not subject.method.traits.identity_start:
        raise DoesNotApply("the method does not promise it: its traits say identity_start=False")
    base, ids = subject.base(), some_ids()
    fresh = subject.train(base, max_steps=1).fresh
    got, bare = answers(base, own_plan(subject.name, fresh), ids), base.logits(ids)
    require(
        torch.equal(got, bare),
        f"a fresh adapter changes answers by up to {distance(got, bare):.2g}: start the update at zero, or say "
        "Traits(identity_start=False)",
    )


def a_trained_adapter_changes_answers(subject: Subject) -> None:
    """After a few steps with a high learning rate, the adapter changes answers, and the changed answers are numbers.

    Every other check would pass for a method that does nothing.
    """
    base, ids = subject.base(), some_ids()
    got, bare = base.logits(ids, adapter=subject.adapter()), base.logits(ids)
    require(bool(got.isfinite().all()), "the trained adapter's answers are not numbers")
    found = distance(got, bare)
    require(found > PLAINLY, f"the trained adapter changes answers by {found:.2g} at most: does it act at all?")


def rows_are_answered_as_alone(subject: Subject) -> None:
    """In a batch of two adapters of the method, the base alone and another method, each row is answered as it is alone.

    A server puts whatever comes together into one batch. What looks at other rows, such as a mean over the batch, shows here.
    """
    base, ids = subject.base(), some_ids(6)
    first, second = subject.adapter(0), subject.adapter(1)
    rows = [first, second, None, subject.neighbour, first, second]
    mixed = base.logits(ids, adapter=rows)
    for number, adapter in enumerate(rows):
        require_close(
            mixed[number : number + 1],
            base.logits(ids[number : number + 1], adapter=adapter),
            f"row {number} of a mixed batch, with {adapter or 'the base alone'}, is answered otherwise than alone",
        )
    require_close(
        base.logits(ids, adapter=first)[:1],
        base.logits(ids[:1], adapter=first),
        "a row is answered otherwise beside others",
    )


def padding_changes_nothing(subject: Subject) -> None:
    """A row that is padded, at its left or at its right, is answered as it is without.

    Training pads at the right, generation at the left. What looks at a token's place in the tensor, or at all tokens of a
    row, shows here.
    """
    base, adapter, pads = subject.base(), subject.adapter(), 3
    ids = some_ids(2)
    want = base.logits(ids, adapter=adapter)
    filler, unseen = torch.zeros(len(ids), pads, dtype=ids.dtype), torch.zeros(len(ids), pads, dtype=ids.dtype)
    seen = torch.ones_like(ids)
    right = base.logits(torch.cat([ids, filler], 1), adapter=adapter, attention_mask=torch.cat([seen, unseen], 1))
    left = base.logits(torch.cat([filler, ids], 1), adapter=adapter, attention_mask=torch.cat([unseen, seen], 1))
    require_close(right[:, :-pads], want, "a row that is padded at the right is answered otherwise")
    require_close(left[:, pads:], want, "a row that is padded at the left is answered otherwise")


def cached_answers_are_the_same(subject: Subject) -> None:
    """Greedy answers with a cache are, token for token, those that are worked out anew from the whole sequence each time.

    With a cache a layer sees the whole prompt first, and then one token at a time: it cannot count on the length of ``x``.
    """
    base, ids, adapter = subject.base(), some_ids(2), subject.adapter()
    whole = ids
    for _ in range(NEW):
        whole = torch.cat([whole, base.logits(whole, adapter=adapter)[:, -1:].argmax(-1)], 1)
    cached = _generate(base, ids, [adapter])
    require(
        cached.tolist() == whole[:, ids.shape[1] :].tolist(),
        f"with a cache the answers are the tokens {cached.tolist()}, and without one {whole[:, ids.shape[1] :].tolist()}",
    )


@torch.no_grad()
def _generate(base: Base, ids: Tensor, adapters: list[Any]) -> Tensor:
    """New tokens ``(rows, NEW)`` with a cache; each adapter in turn, the first for the prompt."""
    cache, new = None, []
    for step in range(NEW):
        with base.using(adapters[step % len(adapters)]):
            whole = ids if cache is not None else base.make_room(ids)[0]
            out = base.model(whole, past_key_values=cache, use_cache=True)
        cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        new.append(ids)
    return torch.cat(new, 1)


def swapping_leaves_nothing_behind(subject: Subject) -> None:
    """An adapter answers the same, to the bit, whatever acted before it, in another batch or earlier in the same sequence.

    What a layer works out once and keeps, by the name of its site, is another adapter's the next time.
    """
    ids, first, second = some_ids(2), subject.adapter(0), subject.adapter(1)
    alone = {one: subject.base().logits(ids, adapter=one) for one in (second, first)}
    require(
        distance(alone[first], alone[second]) > PLAINLY,
        "an adapter answers as another one did before it, although they were trained on other rows from other seeds",
    )
    base = subject.base()
    bare = base.logits(ids)
    for one in (first, second, first, None, second):
        require(
            torch.equal(base.logits(ids, adapter=one), bare if one is None else alone[one]),
            f"{one or 'the base alone'} answers otherwise after another adapter has acted",
        )
    turns = _generate(base, ids, [first, second])
    base.logits(ids, adapter=second)
    require(
        torch.equal(turns, _generate(subject.base(), ids, [first, second])),
        "two adapters in turn within one sequence answer otherwise on a base that has seen other adapters",
    )


def threads_do_not_meet(subject: Subject) -> None:
    """Two threads that use two adapters at once each get their own adapter's answers.

    A layer that keeps something between its lines where all layers can see it, in its class or its module, mixes them up.
    """
    base, ids, rounds = subject.base(), some_ids(2), 8
    adapters = [subject.adapter(0), subject.adapter(1)]
    expected = [base.logits(ids, adapter=one) for one in adapters]
    wrong: list[str] = []
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        barrier.wait()
        try:
            for _ in range(rounds):
                found = distance(base.logits(ids, adapter=adapters[number]), expected[number])
                if found > CLOSE:
                    wrong.append(f"answers are off by {found:.2g}")
        except Exception as error:  # noqa: BLE001 - said in the thread that asked
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(not wrong, f"two threads with two adapters disturb each other: {wrong[0] if wrong else ''}")


def stacked_in_either_order(subject: Subject) -> None:
    """With the trait ``stackable``, two adapters of the method act together, and their order does not matter.

    Each must then add something that it works out from the site's input, or do what gives the same in any order.
    """
    if not subject.method.traits.stackable:
        raise DoesNotApply("the method does not promise it: its traits say stackable=False")
    base, ids = subject.base(), some_ids()
    plans = []
    for number in range(2):
        with base.using(subject.adapter(number)):
            plans.append(base.runtime.plan or {})
    one, other = (answers(base, _stacked(order), ids) for order in (plans, plans[::-1]))
    require_close(
        one, other, "two adapters of the method act otherwise in the other order: say Traits(stackable=False)"
    )
    for plan in plans:
        require(
            distance(one, answers(base, plan, ids)) > PLAINLY,
            "of two adapters of the method one alone acts: say Traits(stackable=False)",
        )


def _stacked(plans: list[Plan]) -> Plan:
    sites = {site: [plan[site] for plan in plans if site in plan] for plan in plans for site in plan}
    return {site: _chained(site, actions) for site, actions in sites.items()}


def _chained(site: str, actions: list[Any]) -> Action:
    return InputAction(lambda: torch.cat([one.table() for one in actions])) if site == INPUT else Chain(tuple(actions))
