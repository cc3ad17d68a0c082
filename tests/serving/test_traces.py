"""Traces: what a span says, whose child it is, and that no text and no key is in any."""

import json
import sys
import time

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from adapterkit.errors import ArtifactError, ConfigError
from adapterkit.serving import Engine
from adapterkit.serving.metrics import Metrics
from adapterkit.serving.telemetry import telemetry
from adapterkit.serving.traces import Traces
from adapterkit.serving.watching import Watcher, Watchers
from tests.support import make_adapter

from .http_server import KEYS, USER, client_of

ASKED = {"model": "cards", "prompt": "The secret of the card", "max_tokens": 5, "temperature": 0}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def kept():
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def provider(kept):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return provider


@pytest.fixture
def exporter(kept):
    kept.clear()
    return kept


@pytest.fixture(scope="module")
def engine(example_base, provider):
    adapters = {"cards": make_adapter(example_base, seed=1)}
    with Engine(example_base, adapters, watcher=Watchers(Metrics(), Traces(provider))) as engine:
        yield engine


def named(exporter, name, count=1):
    """The spans of a name, once there are so many: an answer is there a moment before its span is."""
    end = time.monotonic() + 30
    while True:
        found = [span for span in exporter.get_finished_spans() if span.name == name]
        if len(found) >= count or time.monotonic() > end:
            return found
        time.sleep(0.01)


def test_a_request_is_a_span_with_its_parts(engine, exporter):
    answer = engine.submit("The secret of the card", model="cards", max_new_tokens=5, id="mine-1")
    answer.result()
    (span,) = named(exporter, "generate_content cards")
    said = dict(span.attributes)
    assert said.pop("gen_ai.response.time_to_first_chunk") == pytest.approx(answer.usage.first_token)
    assert said == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "adapterkit",
        "gen_ai.request.model": "cards",
        "gen_ai.response.id": "mine-1",
        "gen_ai.response.finish_reasons": (answer.finish_reason,),
        "gen_ai.usage.input_tokens": answer.prompt_tokens,
        "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": answer.usage.cached_tokens,
        "adapterkit.adapter": "cards",
        "adapterkit.digest": answer.choice.digest,
    }
    parts = [named(exporter, name)[0] for name in ("queue", "prefill", "decode")]
    assert all(part.parent.span_id == span.context.span_id for part in parts)
    times = [span.start_time, *(time for part in parts for time in (part.start_time, part.end_time)), span.end_time]
    assert times == sorted(times)  # one after the other, without gaps
    assert parts[0].end_time == parts[1].start_time
    assert parts[1].end_time == parts[2].start_time


def test_names_are_those_of_the_conventions(engine, exporter):
    attributes = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(attributes).items() if name.startswith("GEN_AI_")} | {"error.type"}
    engine.generate("Hello", model="cards", max_new_tokens=2)
    assert named(exporter, "generate_content cards")
    with pytest.raises(LookupError):
        engine.submit("Hello", model="nobody")
    said = {name for span in exporter.get_finished_spans() for name in span.attributes}
    assert {name for name in said if not name.startswith("adapterkit.")} <= known


def test_the_parent_is_the_span_that_is_current(engine, exporter, provider):
    with provider.get_tracer("app").start_as_current_span("app") as parent:
        engine.generate("Hello", model="cards", max_new_tokens=2)
    (span,) = named(exporter, "generate_content cards")
    assert span.parent.span_id == parent.get_span_context().span_id


def test_the_parent_over_http_is_what_the_header_says(engine, exporter):
    header = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with client_of(engine, USER, keys=KEYS) as client:
        assert client.post("/v1/completions", json={**ASKED, "n": 2}, headers=header).status_code == 200
        chat = {"model": "cards", "messages": [{"role": "user", "content": "secret"}], "max_tokens": 3}
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
        assert client.post("/v1/completions", json={**ASKED, "model": "secret-name"}, headers=header).status_code == 404
        assert client.post("/v1/completions", json=ASKED, headers={"traceparent": "nonsense"}).status_code == 200
        assert httpx.post(client.base_url.join("/v1/completions"), json=ASKED, headers=header).status_code == 401
    first, second, alone = named(exporter, "text_completion cards", 3)
    for span in (first, second):
        assert f"{span.parent.trace_id:032x}" == f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
    assert alone.parent is None
    assert named(exporter, "chat cards")[0].parent is None
    (refused,) = named(exporter, "text_completion")
    assert refused.status.status_code is StatusCode.ERROR
    assert refused.attributes["error.type"] == "UnknownNameError"
    assert f"{refused.context.trace_id:032x}" == TRACE


def test_no_text_and_no_key_is_in_any(engine, exporter):
    with client_of(engine, USER, keys=KEYS) as client:
        answer = client.post("/v1/completions", json=ASKED).json()["choices"][0]["text"]
    assert named(exporter, "text_completion cards")
    with pytest.raises(ValueError, match="top_p"):
        engine.submit("secret", model="cards", top_p=7)
    written = json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()])
    assert "secret" not in written
    assert answer not in written
    assert USER not in written


def test_one_that_is_given_up_ends(engine, exporter):
    answer = engine.submit("Hello", model="cards", max_new_tokens=400)
    next(iter(answer))
    answer.cancel()
    answer.result()
    (span,) = named(exporter, "generate_content cards")
    assert span.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)
    assert span.status.status_code is StatusCode.UNSET


def test_one_that_fails_says_of_what(engine, exporter):
    with pytest.raises(TimeoutError):
        engine.submit("Hello", model="cards", max_new_tokens=400, timeout=1e-4).result()
    (span,) = named(exporter, "generate_content cards")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes["error.type"] == "DeadlineError"


def test_loads_and_evictions(provider, exporter):
    traces = Traces(provider)
    traces.loaded("d1", "device", 5, 0.25)
    traces.load_failed("d2", ArtifactError("/where/it/lies is damaged"))
    traces.evicted("d1", "device", 5)
    good, bad = named(exporter, "load adapter", 2)
    assert good.attributes == {"adapterkit.digest": "d1", "adapterkit.tier": "device", "adapterkit.bytes": 5}
    assert (good.end_time - good.start_time) / 1e9 == pytest.approx(0.25)
    assert bad.attributes["error.type"] == "ArtifactError"
    assert "/where" not in bad.to_json()
    assert len(named(exporter, "evict adapter")) == 1


def test_what_is_not_sampled_is_not_kept(example_base, exporter):
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Engine(example_base, watcher=Traces(provider)) as engine:
        engine.generate("Hello", max_new_tokens=2)
    assert exporter.get_finished_spans() == ()


def test_without_a_provider_nothing_is_done(example_base):
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    with Engine(example_base, watcher=Traces()) as engine:
        assert engine.generate("Hello", max_new_tokens=2) is not None


def test_several_watchers_are_all_told():
    told = {name for name, value in vars(Watcher).items() if callable(value) and not name.startswith("_")}
    assert told <= set(vars(Watchers))
    metrics, traces = Metrics(), Traces()
    both = Watchers(metrics, Watchers(traces))
    assert both.find(Metrics) is metrics
    assert both.find(Traces) is traces
    assert Watchers(metrics).find(Traces) is None


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_environment_says_whether(environment, wanted, monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("adapterkit.serving.traces.traces_of_environment", Traces)
    watcher = telemetry()
    assert watcher.find(Metrics) is not None
    assert (watcher.find(Traces) is not None) is wanted


def test_an_exporter_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(ConfigError, match="carrier-pigeon"):
        telemetry()


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "adapterkit.serving.traces", None)
    with pytest.raises(ConfigError, match=r"adapterkit\[otel\]"):
        telemetry()
