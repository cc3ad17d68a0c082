"""A store of 10,000 versions of small adapters: how long it takes to list them, to resolve a name, and to store one again.

Versions of 100 names, each adapter another one, added one after the other as anybody would. Names, aliases and digests are resolved
in random order by a process that has just opened the store. Nothing here has a peer.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from figures import human, report, seconds

NAMES, EACH = 100, 100
RESOLVED = 10_000
LISTING, RESOLVING = 1.0, 0.005


def small(number: int) -> object:
    """An adapter of 64 numbers, another one for each number."""
    import torch

    from adapterkit import Adapter, LowRank
    from adapterkit.registry import default_registry

    factor = torch.full((2, 16), 1.0 + number)
    config, tensors = (
        default_registry().method("lora").express({"layer": (LowRank(factor, factor.T.contiguous(), 1.0),)})
    )
    return Adapter("lora", config, tensors)


def fill(folder: Path) -> float:
    """Add all versions, with an alias for each name; how many a second."""
    from adapterkit import Store

    store, begun = Store(folder), time.perf_counter()
    for number in range(NAMES * EACH):
        version = store.add(small(number), f"name{number % NAMES}")
        if number < NAMES:
            store.promote(version, "live")
    return NAMES * EACH / (time.perf_counter() - begun)


def resolving(store: object, references: list[str]) -> float:
    """The 99th percentile of the time that it takes to resolve a reference."""
    times = sorted(seconds(lambda one=one: store.resolve(one)) for one in references)
    return times[len(times) * 99 // 100]


def blobs(folder: Path) -> dict[str, int]:
    """The blobs of a store, and when each was written for the first time."""
    return {path.name: path.stat().st_ino for path in folder.glob("blobs/*/*/*")}


def main() -> None:
    from adapterkit import Store

    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        rate = fill(folder)
        store = Store(folder)
        chance = random.Random(0)
        found = store.versions()
        mixed = (
            [str(one) for one in found]
            + [f"{one.name}@live" for one in found]
            + [f"sha256:{one.digest}" for one in found]
        )
        mixed += [one.name for one in found]
        listing = min(seconds(lambda: Store(folder).versions()) for _ in range(3))
        p99 = resolving(Store(folder), chance.choices(mixed, k=RESOLVED))
        held = blobs(folder)
        again = [seconds(lambda n=n: store.add(small(n), f"name{n % NAMES}")) for n in range(9_900, 10_000)]
        again += [seconds(lambda n=n: store.add(small(n), "another")) for n in range(100)]
        new = len(blobs(folder).keys() - held.keys())
        count = f"{NAMES * EACH:,} versions"
        report(f"store: list {count}", human(listing), "", "", f"under {human(LISTING)}", met=listing < LISTING)
        report(
            f"store: resolve among {count}, p99", human(p99), "", "", f"under {human(RESOLVING)}", met=p99 < RESOLVING
        )
        report("store: blobs written for 200 identical adapters", str(new), "", "", "0", met=new == 0)
        report("store: add a small adapter", f"{1 / rate * 1e3:.3g} ms", "", "", "", met=True)
        report("store: add an identical one", human(sorted(again)[100]), "", "", "", met=True)


if __name__ == "__main__":
    main()
