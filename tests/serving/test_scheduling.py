"""Who is next: adapters share by tokens, none waits for ever, and each queue keeps its order."""

import random
from collections import Counter

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit.serving.scheduling import Queues


@attrs.frozen(eq=False)
class Item:
    name: str
    cost: int = 10


def taken(queues, count, ready=lambda _: True):
    """The next ``count``, or all that can begin."""
    found = []
    while len(found) < count and (item := queues.next(ready)) is not None:
        found.append(item)
    return found


def filled(quantum, *items):
    queues = Queues(quantum)
    for item in items:
        queues.put(item)
    return queues


def test_one_queue_keeps_its_order():
    items = [Item("a", cost) for cost in (5, 300, 1, 40)]
    assert taken(filled(16, *items), 9) == items


def test_a_flood_for_one_adapter_does_not_starve_another():
    queues = filled(64, *[Item("flood", 32) for _ in range(1000)])
    late = Item("quiet", 32)
    queues.put(late)
    assert late in taken(queues, 6)


def test_what_has_begun_was_paid_for():
    """An engine's request costs nothing more from the moment in which it begins."""

    @attrs.define(eq=False)
    class Begins:
        name: str
        cost: int = 32

        def begin(self):
            self.cost = 0
            return True

    queues = filled(64, *[Begins("flood") for _ in range(99)], Begins("quiet"))
    assert "quiet" in [item.name for item in taken(queues, 6, Begins.begin)]


def test_what_was_interrupted_is_the_first_of_its_queue():
    first, again = Item("a"), Item("a", 0)
    queues = filled(16, first)
    queues.put(again, first=True)
    assert taken(queues, 2) == [again, first]


def test_a_queue_that_cannot_begin_is_passed_over_and_loses_nothing():
    blocked, other = Item("blocked"), Item("other")
    queues = filled(16, blocked, other)
    assert taken(queues, 9, lambda one: one.name != "blocked") == [other]
    assert len(queues) == 1
    assert queues.next(lambda _: False) is None
    assert queues.next(lambda _: True) is blocked
    assert queues.next(lambda _: True) is None


def test_who_has_nothing_to_ask_saves_nothing_up():
    queues = filled(100, Item("a", 1))
    taken(queues, 1)
    for _ in range(200):
        queues.put(Item("a", 100))
        queues.put(Item("b", 100))
    names = Counter(item.name for item in taken(queues, 20))
    assert names == {"a": 10, "b": 10}


def test_removed_items_are_never_taken():
    items = [Item("a"), Item("a"), Item("b")]
    queues = filled(16, *items)
    queues.remove(items[0])
    queues.remove(items[2])
    assert (queues.waiting(), len(queues), list(queues)) == ({"a": 1}, 1, [items[1]])
    assert taken(queues, 9) == [items[1]]
    assert queues.waiting() == {}


@given(quantum=st.integers(1, 400), most=st.integers(1, 300), names=st.integers(2, 4), seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_adapters_that_wait_share_by_tokens(quantum, most, names, seed):
    """Shreedhar and Varghese's bound: two queues that always wait are never further apart than a quantum and two requests."""
    luck = random.Random(seed)
    queues = filled(quantum, *[Item(str(place % names), luck.randint(1, most)) for place in range(200)])
    spent = Counter({str(number): 0 for number in range(names)})
    while len(queues.waiting()) == names:
        item = queues.next(lambda _: True)
        spent[item.name] += item.cost
        assert max(spent.values()) - min(spent.values()) <= quantum + 2 * most


def test_one_whose_requests_are_longer_than_a_turn_gets_its_share_too():
    queues = filled(100, *[Item("long", 101) for _ in range(100)], *[Item("short", 10) for _ in range(1000)])
    spent = Counter()
    for item in taken(queues, 500):
        spent[item.name] += item.cost
    assert 0.8 < spent["long"] / spent["short"] < 1.25


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "first", "next", "remove"]), st.sampled_from("abc"), st.integers(0, 90)),
        max_size=60,
    ),
    quantum=st.integers(1, 64),
)
@settings(max_examples=80)
def test_whatever_happens_nothing_is_lost_or_given_twice(steps, quantum):
    queues, model = Queues(quantum), {}
    for what, name, cost in steps:
        if what in ("put", "first"):
            item = Item(name, cost)
            queues.put(item, first=what == "first")
            own = model.setdefault(name, [])
            own.insert(0 if what == "first" else len(own), item)
        elif what == "remove" and model.get(name):
            queues.remove(model[name].pop(cost % len(model[name])))
        elif what == "next":
            item = queues.next(lambda one, name=name: one.name != name)
            others = [one for one, own in model.items() if own and one != name]
            assert (item is None) == (not others)
            if item is not None:
                assert model[item.name].pop(0) is item
        assert queues.waiting() == {one: len(own) for one, own in model.items() if own}
        assert sorted(map(id, queues)) == sorted(id(one) for own in model.values() for one in own)
        assert len(queues) == sum(map(len, model.values()))


def test_what_was_taken_beyond_what_was_thought_is_paid_for_later():
    """Both were thought to take ten tokens; those of one take thirty."""
    queues = filled(10, *[Item(name) for name in "ab" for _ in range(200)])
    began = Counter()
    for _ in range(120):
        item = queues.next(lambda _: True)
        began[item.name] += 1
        queues.settle(item.name, 20 if item.name == "a" else 0)
    queues.settle("nobody", 5)
    assert 2.5 < began["b"] / began["a"] < 3.5
