"""One kind of memory: what is in it, how much it may hold, and what goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

__all__ = ["Held", "Tier"]

T = TypeVar("T")


@attrs.frozen
class Held:
    """An adapter in a tier.

    Attributes:
        digest: Which adapter.
        tier: ``"device"``, where the base computes, or ``"host"``.
        bytes: What it takes there.
        pinned: Whether it stays.
        users: How many hold it at this moment; always 0 on the host.
    """

    digest: str
    tier: str
    bytes: int
    pinned: bool = False
    users: int = 0


class Tier(Generic[T]):
    """What is kept in one kind of memory, the least recently used first. Its owner holds a lock around each call.

    Args:
        name: What it is called.
        budget: How many bytes it may hold.
    """

    def __init__(self, name: str, budget: int) -> None:
        self.name, self.budget = name, budget
        self.used = 0
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._reserved: dict[str, int] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._kept

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Digests and bytes, the least recently used first."""
        return ((digest, size) for digest, (_, size) in self._kept.items())

    def get(self, digest: str) -> T | None:
        """What is kept of an adapter, which is the most recently used from now on."""
        if digest not in self._kept:
            return None
        self._kept.move_to_end(digest)
        return self._kept[digest][0]

    def put(self, digest: str, value: T, size: int) -> None:
        """Keep it; there is room, as :meth:`room` has said."""
        self._kept[digest] = value, size
        self.used += size

    def pop(self, digest: str) -> int:
        """Let it go; says how many bytes are free again."""
        _, size = self._kept.pop(digest)
        self.used -= size
        return size

    def room(self, size: int, keep: Container[str]) -> list[str] | None:
        """What has to go for ``size`` bytes more, oldest first; None where what is to be kept leaves too little."""
        going: list[str] = []
        free = self.budget - self.used
        for digest, (_, one) in self._kept.items():
            if free >= size:
                break
            if digest not in keep:
                going.append(digest)
                free += one
        return going if free >= size else None

    def reserve(self, digest: str, size: int) -> None:
        """Count bytes that something on its way here will take."""
        self._reserved[digest] = size
        self.used += size

    def release(self, digest: str) -> None:
        """Count them no longer, if they were."""
        self.used -= self._reserved.pop(digest, 0)

    def is_reserved(self, digest: str) -> bool:
        """Whether it is on its way here."""
        return digest in self._reserved
