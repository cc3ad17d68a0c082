"""Who wants to know what an engine does: metrics, traces, logs."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from .answering import Answer

__all__ = ["Watcher", "Watchers"]

logger = logging.getLogger("adapterkit")
W = TypeVar("W", bound="Watcher")


class Watcher:
    """Told of everything that an engine does; each method does nothing here.

    They are called from the engine's thread and from the threads that load adapters, and must be quick; what one raises is logged.
    """

    def asking(self, operation: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Entered while a request that came with these headers is handed to the engine.

        The operation is ``"chat"`` or ``"text_completion"``.
        """
        return contextlib.nullcontext()

    def asked(self, answer: Answer) -> None:
        """A request waits from now on."""

    def refused(self, name: str, error: Exception) -> None:
        """A request for ``name`` was not taken."""

    def began(self, answer: Answer, queued: float) -> None:
        """A request has a place in the batch, after so many seconds."""

    def first_token(self, answer: Answer, seconds: float) -> None:
        """The first token of an answer is there, so many seconds after it was asked for."""

    def stepped(self, rows: int, tokens: int, seconds: float, names: Mapping[str, int]) -> None:
        """A step is done: how many requests it was for, tokens that it made, what it took, and its tokens by adapter."""

    def interrupted(self, answer: Answer) -> None:
        """A request gave its place up, as there was no room for what it and those before it keep, and goes on later."""

    def finished(self, answer: Answer) -> None:
        """An answer is whole, or was cancelled."""

    def failed(self, answer: Answer, error: BaseException) -> None:
        """A request came to nothing."""

    def loaded(self, digest: str, tier: str, size: int, seconds: float) -> None:
        """An adapter is in a tier, ``"device"`` or ``"host"``, from now on, and takes ``size`` bytes there."""

    def load_failed(self, digest: str, error: BaseException) -> None:
        """An adapter could not be loaded."""

    def evicted(self, digest: str, tier: str, size: int) -> None:
        """An adapter is out of a tier."""

    def flush(self) -> None:
        """The server stops: send off at once what is kept to be sent later. Called from any thread, and may take its time."""

    def find(self, kind: type[W]) -> W | None:
        """This watcher, where it is of such a kind; of several, the first that is."""
        return self if isinstance(self, kind) else None


class Watchers(Watcher):
    """Several at once, each told in turn, whatever another one raises."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    @contextlib.contextmanager
    def asking(self, operation: str, headers: Mapping[str, str]) -> Iterator[None]:
        """See :class:`Watcher`."""
        with contextlib.ExitStack() as entered:
            for watcher in self.watchers:
                entered.enter_context(watcher.asking(operation, headers))
            yield

    def asked(self, answer: Answer) -> None:
        """See :class:`Watcher`."""
        self._each("asked", answer)

    def refused(self, name: str, error: Exception) -> None:
        """See :class:`Watcher`."""
        self._each("refused", name, error)

    def began(self, answer: Answer, queued: float) -> None:
        """See :class:`Watcher`."""
        self._each("began", answer, queued)

    def first_token(self, answer: Answer, seconds: float) -> None:
        """See :class:`Watcher`."""
        self._each("first_token", answer, seconds)

    def stepped(self, rows: int, tokens: int, seconds: float, names: Mapping[str, int]) -> None:
        """See :class:`Watcher`."""
        self._each("stepped", rows, tokens, seconds, names)

    def interrupted(self, answer: Answer) -> None:
        """See :class:`Watcher`."""
        self._each("interrupted", answer)

    def finished(self, answer: Answer) -> None:
        """See :class:`Watcher`."""
        self._each("finished", answer)

    def failed(self, answer: Answer, error: BaseException) -> None:
        """See :class:`Watcher`."""
        self._each("failed", answer, error)

    def loaded(self, digest: str, tier: str, size: int, seconds: float) -> None:
        """See :class:`Watcher`."""
        self._each("loaded", digest, tier, size, seconds)

    def load_failed(self, digest: str, error: BaseException) -> None:
        """See :class:`Watcher`."""
        self._each("load_failed", digest, error)

    def evicted(self, digest: str, tier: str, size: int) -> None:
        """See :class:`Watcher`."""
        self._each("evicted", digest, tier, size)

    def flush(self) -> None:
        """See :class:`Watcher`."""
        self._each("flush")

    def _each(self, what: str, *told: Any) -> None:
        for watcher in self.watchers:
            try:
                getattr(watcher, what)(*told)
            except Exception:
                logger.exception("a watcher has failed in %s", what)

    def find(self, kind: type[W]) -> W | None:
        """See :class:`Watcher`."""
        found = (watcher.find(kind) for watcher in self.watchers)
        return next((one for one in found if one is not None), None)
