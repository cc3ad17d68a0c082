"""Figures for Prometheus: what an engine answers, how quickly, and what it holds where."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from adapterkit.errors import DeadlineError, OverloadedError

from .naming import MOST_TEXT, counted_as
from .recent import Recent
from .watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .answering import Answer
    from .engine import Engine

__all__ = ["Metrics"]

MOST_NAMES = 200
OTHER = "other"
BASE = "base"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
TIERS = ("device", "host")


class Metrics(Watcher):
    """Counts what an engine does, in a registry of its own.

    An adapter's name is a label only once a request for it was taken, and only of the first ``names`` adapters; all others are
    counted as ``"other"``. A name that nothing answers to never becomes one, so that no client can fill the memory with names.

    Args:
        names: How many adapters have figures of their own.

    Attributes:
        registry: Where the figures are kept.
        recent: How quickly the last requests were answered.
    """

    def __init__(self, names: int = MOST_NAMES) -> None:
        self.registry, self.recent = CollectorRegistry(), Recent()
        self._most, self._names, self._lock = names, {BASE, OTHER}, threading.Lock()
        self._engine: Engine | None = None
        self._requests = self._counter("requests", "Requests by what became of them.", "adapter", "outcome")
        self._tokens = self._counter(
            "tokens", "Tokens read, taken from the prefix cache, and generated.", "adapter", "kind"
        )
        self._first = self._histogram(
            "time_to_first_token_seconds", "Until an answer's first token.", SECONDS, "adapter"
        )
        self._each = self._histogram("time_per_token_seconds", "Between tokens of an answer.", TOKEN_SECONDS, "adapter")
        self._queue = self._histogram("queue_seconds", "Until a request had a place in the batch.", SECONDS)
        self._interrupted = self._counter(
            "interrupted", "Requests that gave their pages up to others, and went on later."
        )
        self._step = self._histogram("step_seconds", "One step of the batch.", TOKEN_SECONDS)
        self._loads = self._counter("loads", "Adapters read into a tier.", "tier", "outcome")
        self._load = self._histogram("load_seconds", "Reading an adapter into a tier.", SECONDS, "tier")
        self._evictions = self._counter("evictions", "Adapters put out of a tier.", "tier")
        self.registry.register(_Now(self))

    def observe(self, engine: Engine) -> None:
        """Read what waits, runs and is held now from this engine, whenever the figures are asked for."""
        self._engine = engine

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)

    # -- what the engine tells

    def refused(self, name: str, error: Exception) -> None:
        """See :class:`Watcher`."""
        outcome = "overloaded" if isinstance(error, OverloadedError) else "refused"
        self._requests.labels(self._known(name), outcome).inc()

    def began(self, answer: Answer, queued: float) -> None:  # noqa: ARG002 - the watcher's
        """See :class:`Watcher`."""
        self._queue.observe(queued)

    def first_token(self, answer: Answer, seconds: float) -> None:
        """See :class:`Watcher`."""
        self._first.labels(self._label(answer.choice.name)).observe(seconds)
        self.recent.first_token(seconds)

    def interrupted(self, answer: Answer) -> None:  # noqa: ARG002 - the watcher's
        """See :class:`Watcher`."""
        self._interrupted.inc()

    def stepped(self, rows: int, tokens: int, seconds: float, names: Mapping[str, int]) -> None:  # noqa: ARG002
        """See :class:`Watcher`."""
        self._step.observe(seconds)

    def finished(self, answer: Answer) -> None:
        """See :class:`Watcher`."""
        label = self._label(answer.choice.name)
        self._requests.labels(label, answer.finish_reason or "cancelled").inc()
        usage = answer.usage
        if usage is None:
            return
        self._tokens.labels(label, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(label, "cached").inc(usage.cached_tokens)
        self._tokens.labels(label, "completion").inc(usage.completion_tokens)
        if usage.completion_tokens > 1 and usage.seconds >= usage.first_token:
            each = (usage.seconds - usage.first_token) / (usage.completion_tokens - 1)
            self._each.labels(label).observe(each)
            self.recent.token(each)

    def failed(self, answer: Answer, error: BaseException) -> None:
        """See :class:`Watcher`."""
        outcome = "deadline" if isinstance(error, DeadlineError) else "failed"
        self._requests.labels(self._label(answer.choice.name), outcome).inc()

    def loaded(self, digest: str, tier: str, size: int, seconds: float) -> None:  # noqa: ARG002 - the watcher's
        """See :class:`Watcher`."""
        self._loads.labels(tier, "loaded").inc()
        self._load.labels(tier).observe(seconds)

    def load_failed(self, digest: str, error: BaseException) -> None:  # noqa: ARG002 - the watcher's
        """See :class:`Watcher`."""
        self._loads.labels("host", "failed").inc()

    def evicted(self, digest: str, tier: str, size: int) -> None:  # noqa: ARG002 - the watcher's
        """See :class:`Watcher`."""
        self._evictions.labels(tier).inc()

    # -- inside

    def _label(self, name: str) -> str:
        """The name under which an adapter's requests are counted."""
        if not name or name in self._names:
            return name or BASE
        with self._lock:
            if len(self._names) - 2 < self._most:
                self._names.add(name)
                return name
        return OTHER

    def _known(self, model: str) -> str:
        """The name that what was asked for is counted under, where that is a label already: what was refused may be any text."""
        if not model or (self._engine is not None and model == self._engine.catalogue.base_name):
            return BASE
        plain = (part.partition("*")[0].partition("@")[0].strip() for part in model[:MOST_TEXT].split("+"))
        name = counted_as(plain)
        return name if name in self._names else OTHER

    def now(self) -> Iterator[GaugeMetricFamily]:
        """What waits, runs and is held."""
        if self._engine is None:
            return
        stats, held = self._engine.stats(), self._engine.residency.held()
        yield GaugeMetricFamily("adapterkit_waiting", "Requests that wait.", stats.waiting)
        yield GaugeMetricFamily("adapterkit_running", "Requests that are being answered.", stats.running)
        count = GaugeMetricFamily("adapterkit_adapters", "Adapters in a tier.", labels=["tier"])
        size = GaugeMetricFamily("adapterkit_adapter_bytes", "Bytes of the adapters in a tier.", labels=["tier"])
        for tier in TIERS:
            mine = [one for one in held if one.tier == tier]
            count.add_metric([tier], len(mine))
            size.add_metric([tier], sum(one.bytes for one in mine))
        yield count
        yield size

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"adapterkit_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"adapterkit_{name}", about, labels, buckets=buckets, registry=self.registry)


class _Now:
    """Has the registry ask for what is so now, and not for what was told: no figure can drift."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        return self._metrics.now()
