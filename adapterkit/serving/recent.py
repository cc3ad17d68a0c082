"""How quickly the last requests were answered, for whoever looks at a server while it runs."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any

__all__ = ["Recent"]

SECONDS = 10.0
"""How far back is looked."""
MOST = 4096
"""Measurements of each kind that are kept at most: of more than these within the time, the last ones count."""


class Recent:
    """Measurements of the last ten seconds. Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: deque[tuple[float, float]] = deque(maxlen=MOST)
        self._each: deque[tuple[float, float]] = deque(maxlen=MOST)

    def first_token(self, seconds: float) -> None:
        """An answer has its first token, so long after it was asked for."""
        with self._lock:
            self._first.append((time.monotonic(), seconds))

    def token(self, seconds: float) -> None:
        """An answer is whole, whose further tokens took so long each."""
        with self._lock:
            self._each.append((time.monotonic(), seconds))

    def told(self) -> dict[str, Any]:
        """How many there were, and what half of them and 95% of them took at most, in seconds; None where there were none."""
        since = time.monotonic() - SECONDS
        with self._lock:
            kept = {"time_to_first_token": list(self._first), "time_per_token": list(self._each)}
        return {"seconds": SECONDS} | {
            name: _summary(sorted(value for moment, value in those if moment >= since)) for name, those in kept.items()
        }


def _summary(values: list[float]) -> dict[str, float | None]:
    return {"count": len(values), "p50": _quantile(values, 0.5), "p95": _quantile(values, 0.95)}


def _quantile(values: list[float], share: float) -> float | None:
    """The least of the sorted values that so large a share of them does not exceed."""
    return values[math.ceil(share * len(values)) - 1] if values else None
