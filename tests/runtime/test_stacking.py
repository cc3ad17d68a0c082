"""Factors side by side: whatever plans come and go, each column is its own plan's or nobody's."""

import gc
import weakref

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit.runtime import PAGE, Slots, Stacks
from adapterkit.runtime.actions import AddBias, AddLowRank

SITES = {"a": (5, 7), "b": (4, 6), "c": (3, 3)}


def plan_of(seed, rank, sites="abc"):
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=chance)

    made = {site: AddLowRank(drawn(rank, SITES[site][0]), drawn(SITES[site][1], rank)) for site in sites}
    return made | {"d": AddBias(torch.ones(3))}


def check(stacks, plans, columns):
    """The columns of each plan hold its factors, and zeros where it has none; no column is two plans'."""
    taken = [column for plan in plans for column in columns[id(plan)]]
    assert len(taken) == len(set(taken))
    for plan in plans:
        own = columns[id(plan)]
        for site in SITES:
            if site not in plan:
                continue
            stacked = stacks.at(site, max(taken) + 1)
            rank = plan[site].rank
            assert torch.equal(stacked.down[own[:rank]], plan[site].down)
            assert torch.equal(stacked.up[:, own[:rank]], plan[site].up)
            assert not stacked.down[own[rank:]].any()
            assert not stacked.up[:, own[rank:]].any()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=6, unique=True), min_size=1, max_size=12))
def test_plans_that_come_and_go(batches):
    plans = [plan_of(seed, 1 + 5 * seed % 19, ("abc", "a", "bc")[seed % 3]) for seed in range(8)]
    stacks = Stacks(512)
    for batch in batches:
        here = [plans[number] for number in batch]
        columns = stacks.place(here)
        assert set(columns) == set(map(id, here))
        check(stacks, here, columns)
        needed = sum(len(own) for own in columns.values())
        assert max(map(max, columns.values())) < needed + max(needed // 2, 4 * PAGE)


def test_what_another_plan_has_left_at_a_site_is_gone():
    stacks = Stacks(512)
    first, second = plan_of(1, 8), plan_of(2, 8, "a")
    columns = stacks.place([first])[id(first)]
    del first
    gc.collect()
    assert stacks.place([second])[id(second)] == columns
    assert not stacks.at("b", 8).up.any()


def test_a_plan_that_stays_is_not_written_again():
    slots = Slots(lambda needed: needed + 4)
    one, other, third = (plan_of(seed, 8) for seed in range(3))
    assert [id(plan) for plan, _ in slots.place([one, other])[1]] == [id(one), id(other)]
    assert [id(plan) for plan, _ in slots.place([other, third])[1]] == [id(third)]
    assert not slots.place([third, other])[1]


def test_a_plan_without_room_is_left_out():
    stacks = Stacks(24)
    plans = [plan_of(seed, 9) for seed in range(3)]
    assert set(stacks.place(plans)) == {id(plans[0])}


def test_no_plan_is_kept_alive():
    stacks = Stacks(512)
    plan = plan_of(1, 4)
    stacks.place([plan])
    kept = weakref.ref(plan["a"])
    del plan
    gc.collect()
    assert kept() is None
