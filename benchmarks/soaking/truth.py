"""What a name may mean, at a moment: all that was said to the server, and when it had agreed."""

from __future__ import annotations

import time

import attrs

__all__ = ["Truth"]


@attrs.define
class _Change:
    begun: float
    number: int | None
    done: float | None = None


class Truth:
    """Names whose meaning changes, each changed by one task at a time.

    A request that began at one time and was answered at another may have been answered with what the name meant at any moment
    between the two; a change counts from when it was sent, and what was before it until the server had agreed.
    """

    def __init__(self) -> None:
        self._changes: dict[str, list[_Change]] = {}

    def settled(self, name: str, number: int | None) -> None:
        """It means this from the beginning; None for nothing."""
        self._changes[name] = [_Change(0.0, number, 0.0)]

    def begin(self, name: str, number: int | None) -> _Change:
        """It may mean this from now on; :meth:`agreed` or :meth:`refused` follows."""
        change = _Change(time.monotonic(), number)
        self._changes[name].append(change)
        return change

    def agreed(self, change: _Change) -> None:
        """It means nothing else any more."""
        change.done = time.monotonic()

    def refused(self, name: str, change: _Change) -> None:
        """It never meant this."""
        self._changes[name].remove(change)

    def now(self, name: str) -> int | None:
        """What it means, while nobody changes it."""
        return self._changes[name][-1].number

    def possible(self, name: str, began: float, ended: float) -> set[int | None]:
        """All that a request for it may have been answered with."""
        found: set[int | None] = set()
        for change in reversed(self._changes[name]):
            if change.begun <= ended:
                found.add(change.number)
                if change.done is not None and change.done <= began:
                    break
        return found
