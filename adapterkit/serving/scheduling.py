"""Who is next: a queue for each adapter, and turns by deficit round robin (Shreedhar and Varghese 1996) on tokens.

Each queue with something in it gets a quantum of tokens when its turn comes, and may begin requests as long as these pay for
them; what is left it keeps for its next turn. What a request was thought to take is settled with what it took when it ends. So
adapters share the engine by tokens, however many requests one of them has.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Queues", "Waiting"]


class Waiting(Protocol):
    """What may stand in a queue."""

    @property
    def name(self) -> str:
        """Its queue."""

    @property
    def cost(self) -> int:
        """The tokens that it is thought to take."""


W = TypeVar("W", bound=Waiting)


@attrs.define(eq=False)
class _Queue(Generic[W]):
    items: deque[W] = attrs.field(factory=deque)
    deficit: int = 0


class Queues(Generic[W]):
    """All that waits, by adapter.

    Args:
        quantum: Tokens that a queue gets in its turn.
    """

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._queues: OrderedDict[str, _Queue[W]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        return (one for queue in list(self._queues.values()) for one in list(queue.items))

    def waiting(self) -> dict[str, int]:
        """How many wait, by adapter."""
        return {name: len(queue.items) for name, queue in list(self._queues.items())}

    def put(self, item: W, *, first: bool = False) -> None:
        """Let it wait; ``first`` before all others of its queue, as what was interrupted does."""
        queue = self._queues.setdefault(item.name, _Queue())
        (queue.items.appendleft if first else queue.items.append)(item)
        self._count += 1

    def remove(self, item: W) -> None:
        """It waits no more."""
        queue = self._queues[item.name]
        queue.items.remove(item)
        self._dropped(item.name, queue)

    def settle(self, name: str, tokens: int) -> None:
        """Take what a request has taken beyond what it was thought to from its queue's next turns, if it has any."""
        if name in self._queues:
            self._queues[name].deficit -= tokens

    def next(self, ready: Callable[[W], bool]) -> W | None:
        """The next to begin; None where nothing can.

        Args:
            ready: Whether one may begin now. A queue whose first may not is passed over, and loses nothing by it.
        """
        blocked: set[str] = set()
        while len(blocked) < len(self._queues):
            name, queue = next(iter(self._queues.items()))
            head = queue.items[0]
            cost = head.cost  # before it begins: what is under way costs nothing more
            if name not in blocked and cost <= queue.deficit:
                if ready(head):
                    queue.items.popleft()
                    queue.deficit -= cost
                    self._dropped(name, queue)
                    return head
                blocked.add(name)
            # its turn is over: to the end of the line, with something for the next one
            if name not in blocked:
                queue.deficit += self._quantum
            self._queues.move_to_end(name)
        return None

    def _dropped(self, name: str, queue: _Queue[W]) -> None:
        self._count -= 1
        if not queue.items:  # who has nothing to ask saves nothing up
            del self._queues[name]
