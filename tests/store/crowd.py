"""Many processes at one store, some of which are killed: what they did, and what was wrong, as JSON.

A program of its own, so that processes are forked from one that has no threads::

    python tests/store/crowd.py work STORE ADAPTER PROCESSES SECONDS
    python tests/store/crowd.py kill STORE ADAPTER KILLS
"""

import datetime as dt
import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import attrs

from adapterkit import Adapter, ConflictError, SelectionError, Store, UnknownNameError

NAMES = ("cards", "tone", "style")
PARENT = os.getpid()
POOL = 6
"""Adapters that everybody adds again and again: their blobs are deleted under the one while the other needs them."""


def main(what, folder, adapter, *numbers):
    made = Adapter.load(adapter)
    pool = [variant(made, index) for index in range(POOL)]
    store = Store(folder)
    store.promote(store.add(pool[0], "chain"), "head", expect=None, why="0")
    said = (
        work(folder, made, pool, *map(int, numbers)) if what == "work" else kill(folder, made, pool, *map(int, numbers))
    )
    print(json.dumps({**said, **settled(Store(folder), made)}))  # noqa: T201 - that is how it answers


def work(folder, made, pool, processes, seconds):
    """Let so many processes at a store, and add up what they say."""
    pipes = [os.pipe() for _ in range(processes)]
    for number, (_, write) in enumerate(pipes):
        if os.fork() == 0:
            said = Worker(folder, made, pool, number).run(seconds)
            os.write(write, json.dumps(said).encode())
            os._exit(0)
    for _ in pipes:
        os.wait()
    said = [json.loads(os.read(read, 1 << 16)) for read, _ in pipes]
    done = sum((Counter(one["done"]) for one in said), Counter())
    return {
        "done": done,
        "failed": [line for one in said for line in one["failed"]],
        "slowest": max(one["slowest"] for one in said),
    }


def kill(folder, made, pool, kills):
    """Kill two processes at work at so many moments, and look at the store after each."""
    moments, damage = random.Random(7), []
    for number in range(kills):
        children = [os.fork() for _ in range(2) if os.getpid() == PARENT]
        if 0 in children:
            Worker(folder, made, pool, 2 * number + len(children)).run(3600)
        time.sleep(moments.uniform(0.02, 0.3))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        damage += [f"after kill {number + 1}: {problem}" for problem in Store(folder).check().problems]
    return {"kills": kills, "damage": damage}


def settled(store, made):
    """What must hold in the end: the journal tells of every move of the head, in one line from the first to the last."""
    entries = [one for one in store.history("chain@head") if one.action == "promote"]
    linked = all(two.before == one.after for one, two in itertools.pairwise(entries))
    store.add(variant(made, 10**6), "cards")  # it still works
    store.collect(dt.timedelta(0))
    checked = store.check()
    unreadable = [str(one) for one in store.versions() if store.load(one).digest != one.digest]
    return {
        "moves": len(entries) - 1,
        "counted": [one.why for one in entries] == [str(count) for count in range(len(entries))],
        "linked": linked,
        "head": store.resolve("chain@head").number == entries[-1].after,
        "problems": checked.problems,
        "orphans": checked.orphans,
        "unreadable": unreadable,
        "left": len(list((store.folder / "staging").iterdir())),
    }


def variant(adapter, number):
    """Another adapter, of which the first tensor is the same."""
    names = list(adapter.tensors)
    changed = {name: adapter.tensors[name] * (1 + number / 1024) for name in names[1:]}
    return attrs.evolve(adapter, tensors={names[0]: adapter.tensors[names[0]], **changed})


class Worker:
    """One process: it does this and that, and remembers what it did."""

    def __init__(self, folder, made, pool, number):
        self.store = Store(folder)
        self.made = made
        self.pool = pool
        self.number = number
        self.random = random.Random(number)
        self.done = Counter()
        self.failed = []
        self.slowest = 0.0
        self.steps = 0

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.steps += 1
            what = self.random.choices((self.add, self.count, self.read, self.move, self.collect), (4, 3, 6, 3, 1))[0]
            begun = time.monotonic()
            try:
                self.done[what() or what.__name__] += 1
            except Exception:  # noqa: BLE001 - whatever it is, it is what the test looks for
                self.failed.append(traceback.format_exc()[-600:])
            self.slowest = max(self.slowest, time.monotonic() - begun)
        return {"done": self.done, "failed": self.failed[:3], "slowest": self.slowest}

    def add(self):
        self.store.add(self.random.choice(self.pool), self.random.choice(NAMES), who=f"worker {self.number}")

    def count(self):
        """Move the head on by one, from where it is seen to be; the adapter is a new one, so that no two moves are alike."""
        last = self.store.history("chain@head")[-1]
        try:
            version = self.store.add(variant(self.made, 1000 * (self.number + 1) + self.steps), "chain")
            self.store.promote(version, "head", expect=last.after, why=str(int(last.why) + 1))
        except ConflictError:
            return "too late"
        except UnknownNameError as error:
            return gone(error)
        return None

    def read(self):
        """Load something; whatever it is, it is what its digest says."""
        reference = self.random.choice((*NAMES, "chain@head", *(f"{name}@production" for name in NAMES)))
        try:
            version = self.store.resolve(reference)
            adapter = self.store.load(version)
        except UnknownNameError as error:
            return gone(error)
        if adapter.digest != version.digest:
            raise AssertionError(f"{version} is another adapter")
        return None

    def move(self):
        name = self.random.choice(NAMES)
        try:
            if self.random.random() < 0.3:
                self.store.rollback(f"{name}@production")
            else:
                self.store.promote(name, "production")
        except (UnknownNameError, SelectionError) as error:
            return gone(error)
        return None

    def collect(self):
        self.store.collect(dt.timedelta(seconds=self.random.choice((0, 0, 1))), keep=1)


def gone(error):
    """The name of a failure that is none: what was asked for is not there yet, or not any more, and the error says so."""
    said = str(error)
    if (
        "collected" in said
        or "no adapter in the store" in said
        or "no alias" in said
        or "cannot be rolled back" in said
    ):
        return "gone"
    raise error


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
