"""How a benchmark times things and says what it found: one JSON line for each figure."""

import json
import time
from collections.abc import Callable


def report(what: str, ours: str, peer: str, ratio: str, bar: str, *, met: bool) -> None:
    """Print one figure."""
    print(json.dumps({"what": what, "ours": ours, "peer": peer, "ratio": ratio, "bar": bar, "met": met}), flush=True)


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def human(value: float) -> str:
    """Seconds as people say them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
