"""The loop: who waits, who begins, one step after another, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import attrs

from adapterkit.errors import DeadlineError, EngineError, OverloadedError

from .batch import Batch
from .scheduling import Queues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .batch import Stepped
    from .jobs import Job
    from .options import EngineOptions
    from .residency import Residency
    from .stepping import Runner
    from .watching import Watcher

__all__ = ["Loop", "Stats"]

logger = logging.getLogger("adapterkit")

RECENT = 30.0
"""Seconds over which it is seen how quickly requests are answered."""


@attrs.frozen(kw_only=True)
class Stats:
    """What an engine does at a moment.

    Attributes:
        running: Requests in the batch.
        waiting: Requests that wait.
        waiting_by_name: The same by adapter.
        kv_pages: Pages for keys and values, of :data:`adapterkit.serving.stepping.pool.PAGE_SIZE` tokens each.
        kv_pages_used: Pages that requests have.
        steps: Steps since the engine began.
        tokens: Tokens generated since then.
        uptime: Seconds since then.
    """

    running: int
    waiting: int
    waiting_by_name: Mapping[str, int]
    kv_pages: int
    kv_pages_used: int
    steps: int
    tokens: int
    uptime: float


class Loop:
    """Takes requests from any thread, and steps the batch in its own.

    Attributes:
        state: ``"ready"``, ``"draining"``, ``"stopping"``, ``"stopped"`` or ``"failed"``.
    """

    def __init__(
        self,
        runner: Runner,
        residency: Residency,
        options: EngineOptions,
        watcher: Watcher,
        *,
        composed_bytes: int,
    ) -> None:
        self.state = "ready"
        self._runner, self._residency, self._options, self._watcher = runner, residency, options, watcher
        self._batch = Batch(runner, prefill_tokens=options.prefill_tokens, composed_bytes=composed_bytes)
        self._queues: Queues[Job] = Queues(options.quantum)
        self._waiting_by_key: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._news = threading.Event()
        self._began, self._steps, self._tokens = time.monotonic(), 0, 0
        self._finished: deque[float] = deque(maxlen=10_000)
        self._short: Job | None = None
        """For which there was no memory when its turn came: none begins before it, or small ones would take what comes free."""
        residency.on_ready = self.wake
        self._thread = threading.Thread(target=self._run, name="adapterkit-engine", daemon=True)
        self._thread.start()

    # -- for any thread

    def put(self, job: Job) -> None:
        """Let a request wait for its place.

        Raises:
            EngineError: The loop is stopped, or too many wait already.
        """
        with self._lock:
            self.check_alive()
            self._check_room(job)
            self._queues.put(job)
            self._waiting_by_key[job.key] += 1
            self._watcher.asked(job.answer)
        self._residency.prefetch(job.digests)
        self.wake()

    def check_alive(self) -> None:
        """Refuse what would never be answered.

        Raises:
            EngineError: The loop does not go round any more, or not for long.
        """
        if self.state != "ready":
            raise EngineError(f"the engine takes no requests: it is {self.state}")

    def wake(self) -> None:
        """Have the loop look again; takes no lock, so that anything may call it."""
        self._news.set()

    def stats(self) -> Stats:
        """What it does now."""
        with self._lock:
            return Stats(
                running=len(self._batch.jobs),
                waiting=len(self._queues),
                waiting_by_name=self._queues.waiting(),
                kv_pages=self._runner.pool.pages - 1,
                kv_pages_used=self._runner.pool.used,
                steps=self._steps,
                tokens=self._tokens,
                uptime=time.monotonic() - self._began,
            )

    def close(self, *, drain: float) -> None:
        """Take no more requests, give those under way ``drain`` seconds, cancel the rest, and stop."""
        with self._lock:
            if self.state == "ready":
                self.state = "draining"
            self._changed.wait_for(lambda: self._is_idle() or self.state != "draining", timeout=max(0.0, drain))
            if self.state == "draining":
                self.state = "stopping"
        self.wake()
        self._thread.join()

    def _check_room(self, job: Job) -> None:
        """Refuse what would have to wait behind too many."""
        options, waiting = self._options, self._queues.waiting()
        full = [
            (len(self._queues), options.max_queue, "requests"),
            (waiting.get(job.name, 0), options.max_queue_per_adapter, f"requests for {job.name or 'the base'!r}"),
            (self._waiting_by_key[job.key], options.max_queue_per_key, "requests with this key"),
        ]
        for count, most, what in full:
            if most is not None and count >= most:
                raise OverloadedError(f"{count} {what} wait already", self._retry_after())

    def _retry_after(self) -> float:
        """Seconds until about as many requests will have been answered as wait now."""
        now = time.monotonic()
        while self._finished and now - self._finished[0] > RECENT:
            self._finished.popleft()
        rate = len(self._finished) / RECENT
        return min(60.0, max(1.0, len(self._queues) / rate)) if rate else 1.0

    # -- the loop

    def _is_idle(self) -> bool:
        return not self._batch.jobs and not len(self._queues)

    def _run(self) -> None:
        ending = "stopped"
        try:
            while self._wait():
                self._sweep()
                self._begin()
                if self._batch.jobs:
                    self._step()
        except BaseException:
            ending = "failed"
            logger.exception("the engine has failed")
        with self._lock:
            self.state = ending
            for job in [*self._queues, *self._batch.jobs]:
                if ending == "failed":
                    self._fail(job, EngineError("the engine has failed: its log says of what"))
                else:
                    job.cancel()
                    self._watcher.finished(job.answer)
            for job in list(self._batch.jobs):
                self._leave(job)
            self._changed.notify_all()

    def _wait(self) -> bool:
        """Until there is something to do; False when it is to stop."""
        if not self._batch.jobs:
            self._news.wait(self._soonest())
        self._news.clear()
        return self.state != "stopping"

    def _soonest(self) -> float | None:
        """Seconds until a request that waits is to be given up."""
        with self._lock:
            ends = [job.until for job in self._queues if job.until is not None]
        # nothing may wait longer than the system's clock can tell
        return min(max(0.0, min(ends) - time.monotonic()), threading.TIMEOUT_MAX) if ends else None

    def _sweep(self) -> None:
        """Let go of what was cancelled, or has taken too long."""
        now = time.monotonic()
        with self._lock:
            for job in list(self._queues):
                if self._is_over(job, now):
                    self._forget(job)
            for job in list(self._batch.jobs):
                if self._is_over(job, now):
                    self._leave(job)
            self._changed.notify_all()

    def _is_over(self, job: Job, now: float) -> bool:
        if job.answer.cancelled:
            job.cancel()
            self._watcher.finished(job.answer)
            return True
        if job.until is not None and now >= job.until:
            self._fail(job, DeadlineError(f"the request was given up after {now - job.arrived:.1f} seconds"))
            return True
        return False

    def _fail(self, job: Job, error: Exception) -> None:
        job.answer.fail(error)
        self._watcher.failed(job.answer, error)

    def _forget(self, job: Job) -> None:
        """It waits no more."""
        self._queues.remove(job)
        self._waiting_by_key[job.key] -= 1
        if self._short is job:
            self._short = None

    def _leave(self, job: Job) -> None:
        self._batch.drop(job)
        self._queues.settle(job.name, job.owed)
        self._residency.give(job.digests)
        self._news.set()  # there may be room for one that waits

    def _begin(self) -> None:
        """Take requests into the batch, as many as there is room for."""
        with self._lock:
            while len(self._batch.jobs) < self._options.max_batch:
                unfit: dict[Job, Exception] = {}
                job = self._queues.next(lambda one, unfit=unfit: self._is_in(one, unfit))  # type: ignore[misc]
                for one, error in unfit.items():
                    self._forget(one)
                    self._fail(one, error)
                if job is not None:
                    self._waiting_by_key[job.key] -= 1
                    if not job.began:
                        job.began = time.monotonic()
                        self._watcher.began(job.answer, job.began - job.arrived)
                elif not unfit:
                    return

    def _is_in(self, job: Job, unfit: dict[Job, Exception]) -> bool:
        """Whether a request has a place in the batch now; one that can never have one is added to ``unfit``."""
        options, jobs = self._options, self._batch.jobs
        if self._short is not None and job is not self._short:
            return False
        for most, running in (
            (options.max_running_per_adapter, sum(one.name == job.name for one in jobs)),
            (options.max_running_per_key, sum(one.key == job.key for one in jobs)),
        ):
            if most is not None and running >= most:
                return False
        try:
            residents = self._residency.take(job.digests)
        except Exception as error:  # noqa: BLE001 - whatever a load has failed of, it has for all who wait for it
            unfit |= {one: error for one in self._queues if one.digests == job.digests}
            return False
        if residents is None:
            return False
        added = False
        try:
            added = self._batch.add(job, residents)
        except Exception as error:  # noqa: BLE001 - whatever a composition fails of
            unfit[job] = error
        finally:
            if not added:
                self._residency.give(job.digests)
        self._short = None if added or job in unfit else job
        return added

    def _step(self) -> None:
        began = time.monotonic()
        with self._lock:
            for job in self._batch.make_room():
                self._residency.give(job.digests)
                self._queues.put(job, first=True)
                self._waiting_by_key[job.key] += 1
                self._short = None  # it may not be the first of its queue any more
                self._watcher.interrupted(job.answer)
        done = self._batch.step()
        seconds = time.monotonic() - began
        with self._lock:
            for job in done.finished:
                self._leave(job)
                self._finished.append(time.monotonic())
            for job, error in done.failed:
                self._leave(job)
                self._fail(job, error)
            self._steps += 1
            self._tokens += sum(done.tokens.values())
            self._changed.notify_all()
        self._tell(done, seconds)

    def _tell(self, done: Stepped, seconds: float) -> None:
        for job in done.begun:
            self._watcher.first_token(job.answer, job.first - job.arrived)
        self._watcher.stepped(done.rows, sum(done.tokens.values()), seconds, done.tokens)
        for job in done.finished:
            self._watcher.finished(job.answer)
