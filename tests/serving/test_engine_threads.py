"""Many threads, any order, too little of everything: each answer is what it would have been alone."""

import random
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from adapterkit import Blend, Stack
from adapterkit.errors import OverloadedError
from adapterkit.testing import tiny_llama
from tests.serving.engines import PATIENT, base_of, kinds, serving, settle, solo, tokens_of
from tests.support import make_adapter, state_digest

LENGTHS = (1, 20, 40)
NEW = 10
PAGES = 16


class World:
    """A base, adapters, and what each request would be answered alone."""

    def __init__(self):
        self.base = base_of(tiny_llama(max_position_embeddings=256))
        one, two, three = (make_adapter(self.base, seed=seed, rank=4 + seed) for seed in range(3))
        every = kinds(self.base)
        self.named = {"one": one, "two": two, "three": three, "soft": every["prompt tuning"], "full": every["full"]}
        self.named |= {"stranger": every["a stranger's"], "prefix": every["prefix tuning"]}
        self.acting = {
            "": None,
            **self.named,
            "one+two": Stack(one, two),
            "two*0.7+three*-0.4": Blend({two: 0.7, three: -0.4}),
        }
        self.models = list(self.acting)
        self.state = state_digest(self.base.model)
        self._known = {}

    def prompt(self, length):
        return [5 + (number * 7 + length) % 90 for number in range(length)]

    def expected(self, model, length, count):
        """The first ``count`` tokens."""
        if (model, length) not in self._known:
            self._known[model, length] = solo(self.base, self.acting[model], self.prompt(length), NEW)
        return self._known[model, length][:count]

    def options(self):
        """Less of everything than is needed at once."""
        size = max(self.base.prepare(one).bytes for one in self.named.values())
        page = 16 * 4 * 2 * 2 * 8 * 2
        return {
            "kv_memory": PAGES * page,
            "adapter_memory": int(2.5 * size),
            "host_memory": size,
            "prefill_tokens": 16,
            "max_batch": 6,
        }


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    assert state_digest(made.base.model) == made.state


def some(luck, world):
    return luck.choice(world.models), luck.choice(LENGTHS), luck.randint(1, NEW)


def traffic(world, engine, seed, count, wrong):
    """One user: asks, waits, loses interest, and notes what was not as it would have been alone."""
    luck = random.Random(seed)
    for _ in range(count):
        model, length, new = some(luck, world)
        answer = engine.submit(world.prompt(length), model=model, max_new_tokens=new, key=str(seed % 3))
        if luck.random() < 0.2:
            if luck.random() < 0.5:
                next(iter(answer), None)
            answer.cancel()
        found, expected = tokens_of(answer), world.expected(model, length, new)
        is_whole = answer.finish_reason in ("stop", "length")
        if found != expected[: None if is_whole else len(found)]:
            wrong.append((model, length, new, found, expected))
        if luck.random() < 0.1:
            engine.residency.drop(world.named["one"].digest)


def crowd(world, threads, count):
    wrong, seen = [], random.Random(1)
    for model in world.models:  # before, and not beside it: the base is asked in this thread
        for length in LENGTHS:
            world.expected(model, length, 1)
    with serving(world.base, world.named, **world.options()) as engine:
        users = [
            threading.Thread(target=traffic, args=(world, engine, seen.random(), count, wrong), daemon=True)
            for _ in range(threads)
        ]
        for one in users:
            one.start()
        for one in users:
            one.join(20 * PATIENT)
            assert not one.is_alive()
        assert wrong == []
        settle(engine)


def test_a_crowd_of_threads_is_answered_as_each_would_be_alone(world):
    crowd(world, threads=4, count=8)


@pytest.mark.slow
def test_a_larger_crowd_for_longer(world):
    crowd(world, threads=16, count=100)


class Traffic(RuleBasedStateMachine):
    """Requests that come, go and are given up, in any order."""

    world: World

    @initialize()
    def start(self):
        self.context = serving(self.world.base, self.world.named, **self.world.options(), max_queue=8)
        self.engine = self.context.__enter__()
        self.under_way = []

    @rule(model=st.integers(0, 8), length=st.sampled_from(LENGTHS), new=st.integers(1, NEW), again=st.integers(1, 3))
    def ask(self, model, length, new, again):
        model = self.world.models[model]
        for _ in range(again):
            try:
                answer = self.engine.submit(self.world.prompt(length), model=model, max_new_tokens=new)
            except OverloadedError:  # what such an error says: test_engine_failures.py
                continue
            self.under_way.append((answer, self.world.expected(model, length, new)))

    @rule(number=st.integers(0, 9), wait=st.booleans())
    def give_up(self, number, wait):
        if self.under_way:
            answer, expected = self.under_way.pop(number % len(self.under_way))
            if wait:
                next(iter(answer), None)
            answer.cancel()
            found = tokens_of(answer)
            assert found == expected[: len(found)]

    @rule(number=st.integers(0, 9))
    def wait(self, number):
        if self.under_way:
            answer, expected = self.under_way.pop(number % len(self.under_way))
            assert tokens_of(answer) == expected

    @rule(name=st.sampled_from(["one", "two", "soft", "stranger"]))
    def evict(self, name):
        self.engine.residency.drop(self.world.named[name].digest)

    @rule()
    def rest(self):
        for answer, expected in self.under_way:
            assert tokens_of(answer) == expected
        self.under_way = []
        settle(self.engine)

    @invariant()
    def is_sound(self):
        if hasattr(self, "engine"):
            assert self.engine.state == "ready"
            assert 0 <= self.engine.stats().kv_pages_used < PAGES

    def teardown(self):
        if hasattr(self, "engine"):
            self.rest()
            self.context.__exit__(None, None, None)


def machine(world, examples, steps):
    kind = type("TrafficOfWorld", (Traffic,), {"world": world})
    run_state_machine_as_test(kind, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None))


def test_any_order_of_requests_cancellations_and_evictions(world):
    machine(world, examples=4, steps=15)


@pytest.mark.slow
def test_more_orders(world):
    machine(world, examples=60, steps=30)


def test_the_base_is_asked_beside_its_engine(world):
    wrong = []
    with serving(world.base, world.named) as engine:
        expected = world.expected("two", 20, NEW)

        def ask_the_base():
            wrong.extend(
                found
                for _ in range(3)
                if (found := solo(world.base, world.named["two"], world.prompt(20), NEW)) != expected
            )

        other = threading.Thread(target=ask_the_base)
        other.start()
        while other.is_alive():
            answers = [engine.submit(world.prompt(20), model=model, max_new_tokens=NEW) for model in ("one", "two", "")]
            assert tokens_of(answers[1]) == expected
        other.join()
        assert wrong == []
