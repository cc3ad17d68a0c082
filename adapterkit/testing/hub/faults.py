"""What is to go wrong, and when."""

from __future__ import annotations

import difflib
import functools
import re
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote

import attrs

from .kinds import KINDS, Strike

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hub import Hub
    from .messages import Answer, Request

__all__ = ["Fault", "Faults"]


def _known(_: Fault, attribute: attrs.Attribute[str], kind: str) -> None:
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(KINDS)}"
        raise ValueError(f"there is no fault {kind!r}: {meant}")


@attrs.define(eq=False)
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: What: a name in ``KINDS``.
        path: A regular expression that is searched in the path of a request, unquoted; without it, the kind's own.
        method: The HTTP method; without it, the kind's own, perhaps any.
        times: How often it happens; ``None`` for always.
        status: The HTTP status of ``error``.
        seconds: How long ``slow`` and ``trickle`` take, and how long ``rate_limited`` says to wait.
        by: How many bytes ``lying_length`` and ``lying_size`` are off, below zero for too few.
        count: How many files ``crowded`` adds.
        struck: How often it has happened.
    """

    kind: str = attrs.field(validator=_known)
    path: str | None = attrs.field(default=None, kw_only=True)
    method: str | None = attrs.field(default=None, kw_only=True)
    times: int | None = attrs.field(default=1, kw_only=True)
    status: int = attrs.field(default=503, kw_only=True)
    seconds: float = attrs.field(default=1.0, kw_only=True)
    by: int = attrs.field(default=10, kw_only=True)
    count: int = attrs.field(default=100_000, kw_only=True)
    struck: int = attrs.field(default=0, init=False)

    def matches(self, request: Request) -> bool:
        """Whether it is for this request."""
        if request.place == "elsewhere":
            return False
        kind = KINDS[self.kind]
        method = self.method or kind.method
        path = kind.path if self.path is None or kind.selects else self.path
        return method in {None, request.method} and re.search(path, unquote(request.path)) is not None


class Faults:
    """The faults of a Hub. Each request meets all that match it, the one added last first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Let something go wrong from now on."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let all go well from now on."""
        with self._lock:
            self._faults.clear()

    def around(self, hub: Hub, request: Request, answer: Callable[[], Answer]) -> Answer:
        """The answer to a request, with all that goes wrong."""
        for fault in self._claimed(request):
            answer = functools.partial(self._strike, fault, hub, request, answer)
        return answer()

    def _claimed(self, request: Request) -> list[Fault]:
        with self._lock:
            due = [
                one for one in self._faults if (one.times is None or one.struck < one.times) and one.matches(request)
            ]
            for fault in due:
                fault.struck += 1
        return due

    def _strike(self, fault: Fault, hub: Hub, request: Request, answer: Callable[[], Answer]) -> Answer:
        true = functools.cache(answer)
        spoilt = KINDS[fault.kind].act(Strike(fault, hub, request, true))
        if spoilt is not None:
            return spoilt
        with self._lock:
            fault.struck -= 1
        return true()
