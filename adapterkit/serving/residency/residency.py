"""Adapters in memory, within budgets: what is in use stays, what was not used for longest goes, loads run beside the batch."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from adapterkit.errors import EngineError

from . import claims
from .ledger import Ledger
from .placing import Placing, host_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from adapterkit.adapter import Adapter
    from adapterkit.resident import Resident
    from adapterkit.serving.watching import Watcher
    from adapterkit.shared import SharedModel

    from .tiers import Held

__all__ = ["Residency"]

LOADERS = 2


class Residency:
    """Which adapters are in memory: ready to act in the device tier, as they were read in the host tier.

    The two are counted apart, also where they are the same memory: an adapter that is in both is there in two forms. An adapter is
    fetched, kept on the host, and made ready to act from there; what leaves the device may still be on the host, and what left
    both is fetched again. Loads run in threads of their own, one for each adapter however many want it, and others see only what
    is complete. While an adapter is fetched, it is beyond the host's budget; what it takes on the device is estimated until it was
    there once.

    Args:
        base: What the adapters act on.
        fetch: Reads an adapter by its digest; called in a loader's thread.
        device_bytes: What adapters may take where the base computes.
        host_bytes: What they may take on the host, beside that.
        watcher: Who is told.

    Attributes:
        on_ready: Called from another thread when a ``take`` may succeed that did not before, or raise: after each load that is done
            or has failed, and when what was kept for a request that did not come back is kept no longer.
    """

    def __init__(
        self,
        base: SharedModel,
        fetch: Callable[[str], Adapter],
        *,
        device_bytes: int,
        host_bytes: int,
        watcher: Watcher,
    ) -> None:
        self.on_ready: Callable[[], None] = _nothing
        self._placing, self._fetch = Placing(base), fetch
        self._ledger = Ledger(device_bytes, host_bytes, watcher)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._changes = 0
        self._timer: threading.Timer | None = None
        self._loaders = ThreadPoolExecutor(LOADERS, thread_name_prefix="adapterkit-loader")
        self._closed = False

    # -- for the engine

    def take(self, digests: Sequence[str]) -> tuple[Resident, ...] | None:
        """Adapters that are on the device, all of them, each held until :meth:`give`; it never waits.

        The tensors of their ``adapter`` are left out: those are the host tier's.

        Returns:
            None while they are loaded, or while there is no room for all of them: nothing is held then. What was loaded for it is
            kept for it, for a second.

        Raises:
            EngineError: They take more than the whole budget, or this is closed.
            BaseException: What a load of one of them failed of, once; the next take tries again.
        """
        with self._open_ledger() as ledger:
            return ledger.take(tuple(digests))

    def give(self, digests: Sequence[str]) -> None:
        """Hold them no longer, once the device is done with them.

        Raises:
            EngineError: One of them is not held.
        """
        with self._change() as ledger:
            ledger.give(digests)

    def prefetch(self, digests: Sequence[str]) -> None:
        """Load what will be asked for soon, each by itself, as far as there is room: on the device, else on the host."""
        with self._open_ledger() as ledger:
            ledger.prefetch(digests)

    # -- for who administers it

    def pin(self, digest: str) -> None:
        """Load an adapter and keep it on the device; waits until it is there.

        Raises:
            ConfigError: With it, no room would be left for the largest adapter that was seen so far.
            EngineError: It takes more than the whole budget, or this is closed.
            BaseException: What its load failed of.
        """
        with self._lock:
            seen = self._changes
        while self.take((digest,)) is None:
            with self._changed:
                while self._changes == seen:
                    self._changed.wait()
                seen = self._changes
        try:
            with self._lock:
                self._ledger.pin(digest)
        finally:
            self.give((digest,))

    def unpin(self, digest: str) -> None:
        """Let it go as any other, when its turn comes."""
        with self._change() as ledger:
            ledger.unpin(digest)

    def drop(self, digest: str) -> None:
        """Have an adapter out of all tiers once nobody holds it or waits for it."""
        with self._change() as ledger:
            ledger.drop(digest)

    def held(self) -> list[Held]:
        """What is in each tier, the least recently used first."""
        with self._lock:
            return self._ledger.held()

    def close(self) -> None:
        """Wait for loads under way, and let everything go."""
        with self._change():
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
        self._loaders.shutdown(cancel_futures=True)
        with self._lock:
            self._ledger.clear()

    # -- how the account is kept

    @contextlib.contextmanager
    def _change(self, *, is_ready: bool = False, is_asking: bool = False) -> Iterator[Ledger]:
        """The account, for a block; then loads are begun as it says, and without the lock who wants to know is told.

        Args:
            is_ready: Whether a ``take`` may succeed or raise now.
            is_asking: Whether it is one itself, which helps nobody else.
        """
        news: list[Callable[[], None]] = [self.on_ready] if is_ready else []
        try:
            with self._lock:
                try:
                    yield self._ledger
                finally:
                    self._begin()
                    if not is_asking:
                        self._changes += 1
                        self._changed.notify_all()
                    news += self._ledger.news
                    self._ledger.news = []
        finally:
            for tell in news:
                tell()

    @contextlib.contextmanager
    def _open_ledger(self) -> Iterator[Ledger]:
        with self._change(is_asking=True) as ledger:
            if self._closed:
                raise EngineError("the engine is closed: it holds no adapters any more")
            yield ledger

    def _begin(self) -> None:
        """Begin the loads that the account asks for, and look again later where it waits for nothing that anybody would tell of."""
        ledger = self._ledger
        if not self._closed:
            for digest in ledger.to_fetch:
                self._loaders.submit(self._load, digest, partial(self._bring, digest))
            for digest, adapter in ledger.to_place:
                self._loaders.submit(self._load, digest, partial(self._place, digest, adapter))
            if ledger.is_waiting and self._timer is None:
                self._timer = threading.Timer(claims.PATIENCE, self._look_again)
                self._timer.daemon = True
                self._timer.start()
        ledger.to_fetch, ledger.to_place = [], []

    def _look_again(self) -> None:
        with self._change(is_ready=True) as ledger:
            self._timer = None
            ledger.advance()

    # -- in the loaders' threads

    def _load(self, digest: str, work: Callable[[], None]) -> None:
        """Whatever a load fails of is for those to know who want the adapter."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            inner = error.__traceback__.tb_next if error.__traceback__ else None
            traceback.clear_frames(inner)  # they hold what was made of it so far
            with self._change(is_ready=True) as ledger:
                ledger.failed(digest, error.with_traceback(inner))

    def _bring(self, digest: str) -> None:
        """Fetch an adapter of which nothing is known yet: what it takes, and thereby whether there is room."""
        adapter = self._read(digest)
        likely = self._placing.likely_bytes(adapter)
        with self._change(is_ready=True) as ledger:
            ledger.fetched(digest, adapter, likely)

    def _place(self, digest: str, adapter: Adapter | None) -> None:
        """Have an adapter on the device, where there is room for it."""
        fetched = self._read(digest) if adapter is None else adapter
        began = time.monotonic()
        resident = self._placing.place(fetched)
        with self._change(is_ready=True) as ledger:
            ledger.placed(digest, resident, time.monotonic() - began)

    def _read(self, digest: str) -> Adapter:
        began = time.monotonic()
        adapter = self._fetch(digest)
        size = host_bytes(adapter)
        with self._change() as ledger:
            ledger.keep_on_host(digest, adapter, size, time.monotonic() - began)
        return adapter


def _nothing() -> None:
    pass
