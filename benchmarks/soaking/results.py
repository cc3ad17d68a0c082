"""What came of it all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from .library import Parts

__all__ = ["Key", "Results", "quantile"]

MOST_TOLD = 20


@attrs.frozen
class Key:
    """A greedy request: the same one is answered the same, always."""

    parts: Parts
    prompt: str
    is_chat: bool
    tokens: int


@attrs.define
class Results:
    """Figures of a soak.

    Attributes:
        outcomes: Requests by what became of them.
        changes: Changes of what is served by kind and status.
        answers: The first answer to each greedy request.
        wrong: Answers that are not what they should be.
        unexpected: What else should not have been.
        latencies: Seconds until an answer was whole.
        firsts: Seconds until the first piece of a stream was there.
        tokens: Tokens generated for answers that were whole.
        memory: Seconds since the beginning, and bytes of the server then.
        lag: The longest that this process, which asks, was busy itself.
    """

    outcomes: Counter[str] = attrs.field(factory=Counter)
    changes: Counter[str] = attrs.field(factory=Counter)
    answers: dict[Key, str] = attrs.field(factory=dict)
    repeated: int = 0
    wrong: list[str] = attrs.field(factory=list)
    unexpected: list[str] = attrs.field(factory=list)
    latencies: list[float] = attrs.field(factory=list)
    firsts: list[float] = attrs.field(factory=list)
    tokens: int = 0
    memory: list[tuple[float, int]] = attrs.field(factory=list)
    lag: float = 0.0

    def answered(self, key: Key, text: str) -> None:
        """Keep an answer, or hold it to the one that was there."""
        first = self.answers.setdefault(key, text)
        self.repeated += first is not text
        if first != text:
            self.wrong.append(f"{key}: {first!r}, and later {text!r}")

    def surprise(self, what: str) -> None:
        """Note what should not have been; the first ones in full."""
        self.outcomes["unexpected"] += 1
        if len(self.unexpected) < MOST_TOLD:
            self.unexpected.append(what)

    def growth(self) -> float:
        """How much more memory there is in the last quarter than in the second one, as a share; medians of both."""
        if len(self.memory) < 8:
            return 0.0
        end = self.memory[-1][0]
        second = [size for at, size in self.memory if end / 4 <= at < end / 2]
        last = [size for at, size in self.memory if at >= end * 3 / 4]
        return quantile(last, 0.5) / quantile(second, 0.5) - 1


def quantile(values: list[Any], share: float) -> float:
    """The value below which so much of them lies; 0 of none."""
    return float(sorted(values)[min(len(values) - 1, int(share * len(values)))]) if values else 0.0
