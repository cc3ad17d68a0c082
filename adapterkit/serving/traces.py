"""Traces for OpenTelemetry: a span for each request, with what it waited, read and wrote; and no text of anybody's.

Names follow OpenTelemetry's conventions for generative AI: https://opentelemetry.io/docs/specs/semconv/gen-ai/.
"""

from __future__ import annotations

import contextlib
import os
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import attrs
from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from adapterkit.errors import ConfigError

from .watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.trace import TracerProvider

    from .answering import Answer

__all__ = ["Traces", "traces_of_environment"]

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
OPERATION = context.create_key("adapterkit-operation")
GENERATE = "generate_content"
NS = 1_000_000_000
MOST_NAME = 200


@attrs.define
class _Request:
    """A span, and when its request began to be read and had its first token, in nanoseconds; 0 for not yet."""

    span: Span
    asked: int
    began: int = 0
    first: int = 0


class Traces(Watcher):
    """Tells OpenTelemetry of requests, loads and evictions.

    A request's span is a child of the span that is current where it is asked for, or that its ``traceparent`` header names. The
    spans ``queue``, ``prefill`` and ``decode`` below it share its time out.

    Args:
        provider: Where spans go; by default the process's own provider.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._given = provider
        self._tracer = trace.get_tracer("adapterkit", tracer_provider=provider)
        self._requests: WeakKeyDictionary[Answer, _Request] = WeakKeyDictionary()

    @contextlib.contextmanager
    def asking(self, operation: str, headers: Mapping[str, str]) -> Iterator[None]:
        """See :class:`Watcher`."""
        parent = propagate.extract(headers)
        token = context.attach(context.set_value(OPERATION, operation, parent))
        try:
            yield
        finally:
            context.detach(token)

    def asked(self, answer: Answer) -> None:
        """See :class:`Watcher`."""
        now, choice = time.time_ns(), answer.choice
        told = {"gen_ai.response.id": answer.id, "gen_ai.usage.input_tokens": answer.prompt_tokens}
        told |= {"adapterkit.adapter": choice.name, "adapterkit.digest": choice.digest} if choice.parts else {}
        self._requests[answer] = _Request(self._span(choice.model, told, now), now)

    def refused(self, name: str, error: Exception) -> None:
        """See :class:`Watcher`."""
        span = self._span("", {"gen_ai.request.model": name[:MOST_NAME]}, time.time_ns())
        _fail(span, error)
        span.end()

    def began(self, answer: Answer, queued: float) -> None:
        """See :class:`Watcher`."""
        request = self._requests.get(answer)
        if request is not None:
            request.began = request.asked + int(queued * NS)

    def first_token(self, answer: Answer, seconds: float) -> None:
        """See :class:`Watcher`."""
        request = self._requests.get(answer)
        if request is not None:
            request.first = request.asked + int(seconds * NS)

    def finished(self, answer: Answer) -> None:
        """See :class:`Watcher`."""
        request = self._requests.pop(answer, None)
        if request is None:
            return
        request.span.set_attribute("gen_ai.response.finish_reasons", [answer.finish_reason or "cancelled"])
        if answer.usage is not None:
            request.span.set_attribute("gen_ai.usage.output_tokens", answer.usage.completion_tokens)
            request.span.set_attribute("gen_ai.usage.cache_read.input_tokens", answer.usage.cached_tokens)
        self._end(request)

    def failed(self, answer: Answer, error: BaseException) -> None:
        """See :class:`Watcher`."""
        request = self._requests.pop(answer, None)
        if request is not None:
            _fail(request.span, error)
            self._end(request)

    def loaded(self, digest: str, tier: str, size: int, seconds: float) -> None:
        """See :class:`Watcher`."""
        now = time.time_ns()
        self._of_adapter("load adapter", digest, tier, size, now - int(seconds * NS)).end(now)

    def load_failed(self, digest: str, error: BaseException) -> None:
        """See :class:`Watcher`."""
        span = self._of_adapter("load adapter", digest, "host", 0, time.time_ns())
        _fail(span, error)
        span.end()

    def evicted(self, digest: str, tier: str, size: int) -> None:
        """See :class:`Watcher`."""
        now = time.time_ns()
        self._of_adapter("evict adapter", digest, tier, size, now).end(now)

    def flush(self) -> None:
        """See :class:`Watcher`."""
        flush = getattr(self._given or trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:  # a provider that keeps nothing has none
            flush()

    # -- inside

    def _span(self, model: str, told: Mapping[str, Any], start: int) -> Span:
        operation = str(context.get_value(OPERATION) or GENERATE)
        named = {"gen_ai.operation.name": operation, "gen_ai.provider.name": "adapterkit"}
        named |= {"gen_ai.request.model": model} if model else {}
        name = f"{operation} {model}".rstrip()
        return self._tracer.start_span(name, kind=SpanKind.INTERNAL, attributes={**named, **told}, start_time=start)

    def _end(self, request: _Request) -> None:
        """End a request's span, after those of its parts; the last part that it came to ends with it."""
        now, span = time.time_ns(), request.span
        if span.is_recording():
            if request.first:
                span.set_attribute("gen_ai.response.time_to_first_chunk", (request.first - request.asked) / NS)
            ends = {"queue": request.began, "prefill": request.first, "decode": now}
            inside, start = trace.set_span_in_context(span), request.asked
            for name, end in ends.items():
                self._tracer.start_span(name, inside, start_time=start).end(max(start, end or now))
                if not end:
                    break
                start = end
        span.end(now)

    def _of_adapter(self, name: str, digest: str, tier: str, size: int, start: int) -> Span:
        told: dict[str, Any] = {"adapterkit.digest": digest, "adapterkit.tier": tier, "adapterkit.bytes": size}
        return self._tracer.start_span(name, context.Context(), attributes=told, start_time=start)


def traces_of_environment() -> Traces:
    """Traces that go where OpenTelemetry's variables say, over OTLP; they are sent off in a thread of their own.

    Raises:
        ConfigError: The exporter is not installed, or is unknown.
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    protocol = next((value for name in PROTOCOLS if (value := os.environ.get(name))), "http/protobuf")
    found = entry_points(group="opentelemetry_traces_exporter", name=EXPORTERS.get(protocol, protocol))
    if not found:
        cure = "pip install 'adapterkit[otel]'" if protocol == "http/protobuf" else f"known: {', '.join(EXPORTERS)}"
        raise ConfigError("traces do not fit", [f"there is no exporter for OTLP over {protocol!r}: {cure}"])
    resource = Resource.create({"service.name": "adapterkit"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(next(iter(found)).load()()))
    return Traces(provider)


def _fail(span: Span, error: BaseException) -> None:
    """Say what kind of error it was, and no more: its message may repeat what was asked."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))
