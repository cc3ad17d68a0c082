"""Adapters in memory: within budgets, loaded once, never taken from who uses them."""

import functools
import random
import threading
import time
from collections import Counter

import attrs
import pytest
import torch

from adapterkit import Base
from adapterkit.errors import ArtifactError, BaseMismatchError, ConfigError, EngineError
from adapterkit.runtime import plan_bytes, plan_tensors
from adapterkit.serving.residency import Residency, claims
from adapterkit.serving.watching import Watcher
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.serving.engines import PATIENT, until
from tests.support import make_adapter

GIB = 1 << 30


@pytest.fixture(scope="module")
def llama():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def adapters(llama):
    """Eight adapters of the same size."""
    return [make_adapter(llama, seed=seed, target_modules=["q_proj"]) for seed in range(8)]


@pytest.fixture(scope="module")
def large(llama):
    """One of four times their size."""
    return make_adapter(llama, seed=99, target_modules=["q_proj"], rank=64)


@pytest.fixture(scope="module")
def size(llama, adapters):
    """What one of the eight takes."""
    return llama.prepare(adapters[0]).bytes


class Seen(Watcher):
    """Keeps what it is told, and what should be in the tiers by that."""

    def __init__(self):
        self.told, self.tiers = [], Counter()

    def loaded(self, digest, tier, size, seconds):
        self.told.append(("loaded", digest, tier))
        self.tiers[tier] += size

    def evicted(self, digest, tier, size):
        self.told.append(("evicted", digest, tier))
        self.tiers[tier] -= size

    def load_failed(self, digest, error):
        self.told.append(("failed", digest, type(error).__name__))


class Shelf:
    """Where adapters lie: counts how often each is read, waits where told to, fails where told to."""

    def __init__(self, adapters):
        self.adapters = {adapter.digest: adapter for adapter in adapters}
        self.reads, self.errors = Counter(), {}
        self.open = threading.Event()
        self.open.set()

    def __call__(self, digest):
        self.reads[digest] += 1
        assert self.open.wait(PATIENT)
        if digest in self.errors:
            raise self.errors[digest]
        return self.adapters[digest]


class Holding:
    """A residency, its shelf, and what an engine does to take from it."""

    def __init__(self, base, adapters, *, device, host=GIB):
        self.shelf, self.seen, self.news = Shelf(adapters), Seen(), threading.Event()
        self.names = [adapter.digest for adapter in adapters]
        self.residency = Residency(base, self.shelf, device_bytes=device, host_bytes=host, watcher=self.seen)
        self.residency.on_ready = self.news.set

    def take(self, *digests):
        """As the engine does: asks, and asks again when it is told to."""
        end = time.monotonic() + PATIENT
        while (taken := self.residency.take(digests)) is None:
            assert self.news.wait(end - time.monotonic()), "nobody said that it is ready"
            self.news.clear()
        return taken

    def use(self, *digests):
        self.take(*digests)
        self.residency.give(digests)

    def tier(self, name):
        return [one.digest for one in self.residency.held() if one.tier == name]

    def used(self, name):
        return sum(one.bytes for one in self.residency.held() if one.tier == name)

    def settle(self):
        """Wait until no load is under way, and nothing is on its way to the device."""
        ledger = self.residency._ledger
        until(lambda: not ledger._fetching and not ledger._device._reserved)


@pytest.fixture
def hold(llama):
    """Makes residencies, which are closed after the test."""
    made = []

    def make(adapters, **budgets):
        made.append(Holding(llama, adapters, **budgets))
        return made[-1]

    yield make
    for one in made:
        one.shelf.open.set()
        one.residency.close()


# -- taking


def test_what_is_taken_acts_as_on_the_base_itself(llama, adapters, hold, ids):
    held = hold(adapters, device=GIB)
    (resident,) = held.take(held.names[0])
    with llama.runtime.override(resident.plan):
        answer = llama.model(input_ids=ids).logits
    llama.load(adapters[0])
    with llama.using(adapters[0]):
        assert torch.equal(answer, llama.model(input_ids=ids).logits)
    llama.unload(adapters[0])


def test_the_base_itself_holds_nothing_of_it(llama, adapters, hold):
    held = hold(adapters, device=GIB)
    held.take(held.names[0])
    assert adapters[0] not in llama.resident


def test_what_is_taken_is_known_by_its_digest_and_brings_no_tensors_of_the_host(adapters, hold):
    held = hold(adapters, device=GIB)
    (resident,) = held.take(held.names[0])
    assert resident.adapter.digest == held.names[0]
    assert resident.adapter == adapters[0]
    assert not resident.adapter.tensors
    assert adapters[0].tensors


def test_several_are_taken_at_once_in_order(hold, adapters):
    held = hold(adapters, device=GIB)
    wanted = held.names[2], held.names[0]
    assert [one.adapter.digest for one in held.take(*wanted)] == list(wanted)
    assert {one.digest: one.users for one in held.residency.held() if one.tier == "device"} == dict.fromkeys(wanted, 1)


def test_nothing_is_held_by_a_take_that_has_to_wait(hold, adapters):
    held = hold(adapters, device=GIB)
    held.use(held.names[0])
    assert held.residency.take(held.names[:2]) is None
    assert all(not one.users for one in held.residency.held())


def test_what_was_given_back_twice_is_refused(hold, adapters):
    held = hold(adapters, device=GIB)
    held.use(held.names[0])
    with pytest.raises(EngineError, match="nobody holds it"):
        held.residency.give(held.names[:1])


def test_many_who_want_the_same_at_first_cause_one_read(hold, adapters):
    held = hold(adapters, device=GIB)
    held.shelf.open.clear()
    threads = [threading.Thread(target=held.residency.take, args=(held.names[:1],)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held.shelf.open.set()
    held.take(held.names[0])
    assert held.shelf.reads == {held.names[0]: 1}


def test_taking_never_waits_for_a_load(hold, adapters):
    held = hold(adapters, device=GIB)
    held.use(held.names[0])
    held.shelf.open.clear()
    assert held.residency.take(held.names[1:2]) is None  # its load hangs
    assert held.residency.take(held.names[:1]) is not None


# -- budgets


def test_what_was_not_used_for_longest_leaves_the_device_first_and_stays_on_the_host(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    first, second, third, fourth = held.names[:4]
    for name in (first, second, third, first, fourth):
        held.use(name)
    assert held.tier("device") == [third, first, fourth]
    assert set(held.tier("host")) == {first, second, third, fourth}
    held.use(second)
    assert held.shelf.reads[second] == 1  # it came from the host


def test_what_left_the_host_too_is_read_again(hold, adapters, size):
    held = hold(adapters, device=size, host=size)
    for name in (held.names[0], held.names[1], held.names[0]):
        held.use(name)
    assert held.tier("device") == held.tier("host") == [held.names[0]]
    assert held.shelf.reads == {held.names[0]: 2, held.names[1]: 1}


def test_a_host_without_room_keeps_nothing(hold, adapters, size):
    held = hold(adapters, device=2 * size, host=0)
    held.use(*held.names[:2])
    assert held.tier("host") == []
    assert set(held.tier("device")) == set(held.names[:2])


def test_what_is_held_is_not_evicted(hold, adapters, size):
    held = hold(adapters, device=2 * size)
    first, second, third = held.names[:3]
    held.take(first)
    held.use(second)
    held.use(third)
    assert held.tier("device") == [first, third]


def test_where_everything_is_held_a_take_waits_until_something_is_given_back(hold, adapters, size):
    held = hold(adapters, device=2 * size)
    first, second, third = held.names[:3]
    held.take(first, second)
    assert held.residency.take([third]) is None
    until(lambda: third in held.tier("host"))
    assert held.residency.take([third]) is None
    held.residency.give([first])
    held.take(third)
    assert held.tier("device") == [second, third]


def test_what_is_larger_than_the_whole_budget_is_an_error_with_the_numbers(hold, adapters, large, size):
    held = hold([adapters[0], large], device=2 * size)
    held.take(held.names[0])
    with pytest.raises(EngineError, match=rf"takes {4 * size:,} bytes .* {2 * size:,}.*adapter_memory"):
        held.take(large.digest)
    assert held.residency.take(held.names[:1])  # the others are served as before


def test_several_that_are_larger_together_are_an_error_and_each_alone_is_none(hold, adapters, size):
    held = hold(adapters, device=2 * size)
    with pytest.raises(EngineError, match="3 adapters take"):
        held.take(*held.names[:3])
    for name in held.names[:3]:
        held.use(name)


def test_nobody_overtakes_a_request_that_waits_for_room(hold, adapters, size):
    """Else one that needs much would wait for as long as others that need little come."""
    held = hold(adapters, device=4 * size)
    held.use(held.names[5])
    held.residency.drop(held.names[5])  # what it takes is known from here on
    held.take(*held.names[:2])
    assert held.residency.take(held.names[2:5]) is None  # room for two is free, and three are wanted
    until(lambda: len(held.tier("host")) == 5)
    assert held.residency.take(held.names[5:6]) is None
    held.settle()
    assert held.tier("device") == held.names[:2]
    held.residency.give(held.names[:2])
    held.take(*held.names[2:5])
    held.take(held.names[5])


def test_who_wants_two_each_never_block_one_another(hold, adapters, size):
    """Two requests want two adapters each, and there is room for two: both are served, whoever asks first."""
    held = hold(adapters, device=2 * size)
    pairs = [tuple(held.names[:2]), tuple(held.names[2:4])]
    left = set(pairs)
    end = time.monotonic() + PATIENT
    while left:
        for pair in pairs:
            if pair in left and held.residency.take(pair):
                held.residency.give(pair)
                left.discard(pair)
        if left:
            assert held.news.wait(end - time.monotonic())
            held.news.clear()


def test_overlapping_pairs_from_many_threads_are_all_served(hold, adapters, size):
    held = hold(adapters[:4], device=2 * size)
    draw = random.Random(5)
    pairs = [tuple(draw.sample(held.names, 2)) for _ in range(24)]

    def serve(mine):
        end = time.monotonic() + PATIENT
        for pair in mine:
            while held.residency.take(pair) is None:
                assert time.monotonic() < end
                time.sleep(0.0005)
            held.residency.give(pair)

    _in_threads([functools.partial(serve, pairs[one::4]) for one in range(4)])
    assert held.used("device") <= 2 * size


def test_room_kept_for_a_request_that_was_given_up_is_free_again(hold, adapters, size, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE", 0.05)
    held = hold(adapters, device=2 * size)
    assert held.residency.take(held.names[:2]) is None  # and never comes back
    until(lambda: len(held.tier("device")) == 2)
    held.news.clear()
    held.take(*held.names[2:4])  # which waits to be told, and for nothing else


def test_what_takes_more_than_was_thought_still_fits_the_budget(llama, hold, adapters, size):
    """The full change of a matrix is larger than the factors that its method keeps: what it takes is seen once it is made."""
    held = hold(adapters[:2], device=3 * size)
    held.take(held.names[0])
    likely = held.residency._placing.likely_bytes
    held.residency._placing.likely_bytes = lambda adapter: likely(adapter) // 10
    held.take(held.names[1])
    assert held.used("device") == 2 * size


def test_what_turns_out_to_be_larger_than_there_is_room_waits_for_it(hold, adapters, size):
    held = hold(adapters[:3], device=2 * size)
    held.take(*held.names[:2])
    held.residency._placing.likely_bytes = lambda _: 0
    assert held.residency.take([held.names[2]]) is None
    held.settle()
    assert held.tier("device") == held.names[:2]
    held.residency.give([held.names[0]])
    held.take(held.names[2])
    assert held.used("device") == 2 * size


def test_budgets_hold_and_the_account_is_true_whatever_happens(hold, adapters, large, size, monkeypatch):
    """A random walk over takes, gives, prefetches, pins and drops, beside a model of who holds what."""
    monkeypatch.setattr(claims, "PATIENCE", 0.02)  # most of what is asked for is not come back for
    held = hold([*adapters, large], device=6 * size, host=5 * size)
    draw, holders, pinned = random.Random(11), [], set()
    for _ in range(600):
        one = draw.choice(held.names)
        some = draw.sample(held.names[:8], draw.choice([1, 1, 2]))
        match draw.choice(["take", "take", "give", "give", "prefetch", "pin", "unpin", "drop", "large"]):
            case "take" if len({name for pair in holders for name in pair} | set(some)) < 4 and not pinned:
                if held.residency.take(some):
                    holders.append(some)
            case "large" if not holders and not pinned:
                held.use(large.digest)
            case "give" if holders:
                held.residency.give(holders.pop(draw.randrange(len(holders))))
            case "prefetch":
                held.residency.prefetch(some)
            case "pin" if not holders and one != large.digest and not pinned:
                held.residency.pin(one)
                pinned.add(one)
            case "unpin" if pinned:
                held.residency.unpin(pinned.pop())
            case "drop":
                held.residency.drop(one)
                pinned.discard(one)
        now = held.residency.held()
        device = {found.digest: found for found in now if found.tier == "device"}
        users = Counter(name for pair in holders for name in pair)
        assert all(device[name].users == count for name, count in users.items())
        assert pinned <= device.keys()
        assert sum(found.bytes for found in device.values()) <= 6 * size
        assert sum(found.bytes for found in now if found.tier == "host") <= 5 * size
    held.settle()
    until(lambda: held.seen.tiers["device"] == held.used("device") and held.seen.tiers["host"] == held.used("host"))
    assert held.residency._ledger._device.used == held.used("device")


def test_threads_that_take_give_and_prefetch_at_once_leave_a_true_account(hold, adapters, size):
    held = hold(adapters, device=5 * size, host=3 * size)

    def work(seed):
        draw = random.Random(seed)
        for _ in range(150):
            some = draw.sample(held.names, draw.choice([1, 1, 2]))
            if draw.random() < 0.2:
                held.residency.prefetch(some)
            elif taken := held.residency.take(some):
                assert [one.adapter.digest for one in taken] == some
                held.residency.give(some)

    _in_threads([functools.partial(work, seed) for seed in range(6)])
    held.settle()
    assert all(not one.users for one in held.residency.held())
    assert held.used("device") <= 5 * size
    assert held.used("host") <= 3 * size
    assert held.residency._ledger._device.used == held.used("device")


def _in_threads(works):
    failed = []

    def run(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT * 2)
    assert not failed, failed
    assert not any(thread.is_alive() for thread in threads)


# -- what is counted


METHODS = {
    "lora": {},
    "dora": {"use_dora": True},
    "prompt_tuning": {"tokens": 5},
    "full": {"target_modules": ["q_proj"]},
    "peft:ia3": {},
    "prefix_tuning": {},
    "peft:oft": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_of_an_adapter_are_those_of_the_tensors_that_it_brings(llama, method):
    options = METHODS[method]
    before = {id(one) for one in (*llama.model.parameters(), *llama.model.buffers())}
    resident = llama.prepare(make_adapter(llama, method="lora" if method == "dora" else method, **options))
    tensors = plan_tensors(resident.plan, llama.model)
    assert not before & {id(one) for one in tensors}
    assert resident.bytes == sum({one.data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())
    assert resident.bytes >= resident.adapter.parameters * 2


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_low_rank_factors_are_counted_exactly(make):
    base = Base(make())
    adapter = make_adapter(base)
    assert base.prepare(adapter).bytes == sum(tensor.nbytes for tensor in adapter.tensors.values())


def test_nothing_of_the_base_is_counted(llama):
    module = llama.model.lm_head
    assert plan_bytes({"site": module.forward, "other": [module.weight, module]}, llama.model) == 0
    own = torch.zeros(10)
    module.note = torch.zeros(10)  # as a quantized layer has its scales
    assert plan_bytes({"site": lambda: (own, own[:5], module, module.weight)}, llama.model) == own.nbytes
    del module.note


# -- failures


def test_a_failed_load_is_told_once_leaves_no_trace_and_is_tried_again(hold, adapters, size):
    held = hold(adapters, device=2 * size)
    first, second = held.names[:2]
    held.use(first)
    before = held.residency.held()
    held.shelf.errors[second] = ArtifactError("it is damaged")
    with pytest.raises(ArtifactError, match="it is damaged"):
        held.take(second)
    assert held.residency.held() == before
    assert held.seen.told[-1] == ("failed", second, "ArtifactError")
    held.shelf.errors.clear()
    held.take(second)


@pytest.mark.parametrize("error", [MemoryError("no memory"), torch.OutOfMemoryError("no device memory"), SystemExit(3)])
@pytest.mark.parametrize("stage", ["fetch", "prepare", "measure"])
def test_running_out_of_memory_at_any_stage_changes_nothing(hold, adapters, size, monkeypatch, error, stage):
    held = hold(adapters, device=2 * size)
    first, second, third = held.names[:3]
    held.use(first)
    held.take(second)
    before = [one for one in held.residency.held() if one.tier == "device"]

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        if stage == "fetch":
            held.shelf.errors[third] = error
        elif stage == "prepare":
            patch.setattr(held.residency._placing._base, "prepare", fail, raising=False)
        else:
            patch.setattr(held.residency._placing, "likely_bytes", fail)
        with pytest.raises(type(error)):
            held.take(third)
    held.shelf.errors.clear()
    left = [one for one in held.residency.held() if one.tier == "device"]
    # what had to go for it may be gone; nothing else is, and no room is lost
    assert [one for one in before if one.users] == [one for one in left if one.users]
    assert held.residency._ledger._device.used == held.used("device")
    held.take(third)


def test_a_failure_holds_on_to_nothing_that_was_made(hold, adapters, size):
    held = hold(adapters, device=2 * size)
    gone = []

    def fetch(digest):
        mine = torch.zeros(1000)
        gone.append(torch.multiprocessing.reductions.StorageWeakRef(mine.untyped_storage()))
        raise MemoryError

    held.residency._fetch = fetch
    assert held.residency.take(held.names[:1]) is None
    until(lambda: held.residency._ledger._errors)
    assert gone[0].expired()


def test_an_adapter_of_another_base_is_refused_when_it_is_loaded(hold, adapters):
    foreign = attrs.evolve(
        adapters[0],
        manifest=attrs.evolve(adapters[0].manifest, base=attrs.evolve(adapters[0].manifest.base, fingerprint="0" * 64)),
    )
    held = hold([foreign], device=GIB)
    with pytest.raises(BaseMismatchError):
        held.take(foreign.digest)
    assert held.tier("device") == []


def test_one_of_several_that_fails_is_told_and_the_others_are_kept(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    first, second = held.names[:2]
    held.shelf.errors[second] = ArtifactError("it is damaged")
    with pytest.raises(ArtifactError):
        held.take(first, second)
    assert all(not one.users for one in held.residency.held())
    held.take(first)


# -- prefetch, pins, drops


def test_what_was_fetched_ahead_is_there_when_it_is_asked_for(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    held.residency.prefetch(held.names[:3])
    until(lambda: len(held.tier("device")) == 3)
    assert held.residency.take(held.names[:3])


def test_fetching_ahead_takes_nothing_from_who_uses_it_and_ends_on_the_host(hold, adapters, size):
    held = hold(adapters, device=2 * size)
    held.take(*held.names[:2])
    held.residency.prefetch(held.names[2:4])
    until(lambda: len(held.tier("host")) == 4)
    held.settle()
    assert held.tier("device") == held.names[:2]


def test_what_is_pinned_stays(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    held.residency.pin(held.names[0])
    for name in held.names[1:6]:
        held.use(name)
    (pinned,) = [one for one in held.residency.held() if one.pinned]
    assert pinned.digest == held.names[0]
    held.residency.unpin(held.names[0])
    for name in held.names[1:6]:
        held.use(name)
    assert held.names[0] not in held.tier("device")


def test_a_pin_sleeps_until_something_has_happened(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    asked, take = [], held.residency.take
    held.residency.take = lambda digests: asked.append(digests) or take(digests)
    held.shelf.open.clear()
    pin = threading.Thread(target=held.residency.pin, args=held.names[:1])
    pin.start()
    until(lambda: asked)
    time.sleep(0.05)
    held.shelf.open.set()
    pin.join(PATIENT)
    assert len(asked) < 6


def test_the_last_room_is_never_pinned(hold, adapters, large, size):
    held = hold([*adapters, large], device=6 * size)
    held.use(large.digest)
    for name in held.names[:2]:
        held.residency.pin(name)
    with pytest.raises(ConfigError, match="there must be room for one that is not pinned"):
        held.residency.pin(held.names[2])
    assert [one.digest for one in held.residency.held() if one.pinned] == held.names[:2]
    held.use(large.digest)


def test_a_pin_that_fails_pins_nothing(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    held.shelf.errors[held.names[0]] = ArtifactError("it is damaged")
    with pytest.raises(ArtifactError):
        held.residency.pin(held.names[0])
    assert held.residency.held() == []


def test_what_pins_leave_no_room_for_is_an_error(hold, adapters, large, size):
    held = hold([*adapters, large], device=4 * size)
    held.residency.pin(held.names[0])
    with pytest.raises(EngineError, match="pinned"):
        held.take(large.digest)


def test_what_is_dropped_while_it_is_held_goes_when_it_is_given_back(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    first = held.names[0]
    held.take(first)
    held.residency.drop(first)
    assert held.tier("device") == [first]
    held.residency.give([first])
    assert held.residency.held() == []
    held.take(first)  # a request that began with it may still come
    assert held.shelf.reads[first] == 2


def test_what_is_dropped_while_nobody_holds_it_goes_at_once(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    held.residency.pin(held.names[0])
    held.residency.drop(held.names[0])
    assert held.residency.held() == []


def test_what_is_dropped_on_its_way_is_not_kept(hold, adapters, size, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE", 0.05)
    held = hold(adapters, device=3 * size)
    held.shelf.open.clear()
    held.residency.prefetch(held.names[:1])
    held.residency.drop(held.names[0])
    held.shelf.open.set()
    until(lambda: ("evicted", held.names[0], "device") in held.seen.told or not held.residency._ledger._dropped)
    assert held.residency.held() == []


def test_a_closed_one_holds_nothing_and_gives_nothing(hold, adapters, size):
    held = hold(adapters, device=3 * size)
    held.use(held.names[0])
    held.residency.take(held.names[1:2])
    held.residency.close()
    assert held.residency.held() == []
    with pytest.raises(EngineError, match="closed"):
        held.residency.take(held.names[:1])
