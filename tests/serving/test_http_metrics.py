"""Figures for Prometheus: right, bounded, and without names that nothing answers to."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapterkit.errors import ConfigError, DeadlineError, OverloadedError, UnknownNameError
from adapterkit.serving import Answer, Choice, Usage
from adapterkit.serving.metrics import Metrics

from .engines import settle
from .http_server import KEYS, USER, as_who, client_of, engine_of


def figures(text):
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, *sorted(one.labels.values())): one.value for one in samples}


def answered(name, reason="stop", **usage):
    answer = Answer("a", Choice(name, (), name), 3)
    answer.finish(reason, Usage(3, 5, **usage))
    return answer


def labels(metrics):
    text = metrics.text().decode()
    families = text_string_to_metric_families(text)
    return {sample.labels["adapter"] for family in families for sample in family.samples if "adapter" in sample.labels}


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base) as engine:
        yield engine


def test_what_was_answered_is_counted(engine):
    asked = {"prompt": "The card", "max_tokens": 4, "temperature": 0}
    with client_of(engine, USER, keys=KEYS) as client:
        answers = [client.post("/v1/completions", json={**asked, "model": "cards"}).json() for _ in range(2)]
        client.post("/v1/completions", json={**asked, "model": "base"})
        client.post("/v1/completions", json={**asked, "model": "nobody-knows"})
        settle(engine)  # it counts an answer after it has given it
        found = figures(client.get("/metrics").text)
        assert client.get("/metrics", headers=as_who("wrong")).status_code == 401
        assert httpx.get(client.base_url.join("/metrics")).status_code == 401
    made = sum(answer["usage"]["completion_tokens"] for answer in answers)
    assert found["adapterkit_tokens_total", "cards", "completion"] == made
    assert found["adapterkit_requests_total", "cards", "length"] == 2
    assert found["adapterkit_requests_total", "base", "length"] == 1
    assert found["adapterkit_time_to_first_token_seconds_count", "cards"] == 2
    assert found["adapterkit_time_per_token_seconds_count", "cards"] == 2
    assert found["adapterkit_queue_seconds_count",] == 3
    assert found["adapterkit_waiting",] == found["adapterkit_running",] == 0
    assert found["adapterkit_adapters", "device"] == 1
    held = [one for one in engine.residency.held() if one.tier == "device"]
    assert found["adapterkit_adapter_bytes", "device"] == sum(one.bytes for one in held) > 0
    assert found["adapterkit_loads_total", "device", "loaded"] >= 1
    assert not any("nobody-knows" in key for key in found)


def test_names_are_bounded():
    metrics = Metrics(names=5)
    for number in range(50):
        metrics.finished(answered(f"adapter-{number}"))
        metrics.first_token(answered(f"adapter-{number}"), 0.1)
        metrics.refused(f"adapter-{number}", OverloadedError("full"))
    assert labels(metrics) == {f"adapter-{number}" for number in range(5)} | {"other"}
    found = figures(metrics.text().decode())
    assert found["adapterkit_requests_total", "other", "stop"] == 45
    assert found["adapterkit_requests_total", "adapter-3", "overloaded"] == 1


def test_a_name_that_nothing_answers_to_is_no_label():
    metrics = Metrics()
    for number in range(20):
        metrics.refused(f"x{number}", UnknownNameError("adapter", f"x{number}", []))
    assert labels(metrics) == {"other"}


def test_what_is_refused_is_counted_under_names_that_are_known():
    metrics = Metrics()
    metrics.finished(answered("cards"))
    metrics.finished(answered("cards+tone"))
    for model in ("cards", "cards@3", "cards*0.5", "cards@production+tone*0.5", "", "x", "y@cards", "+", "z" * 10_000):
        metrics.refused(model, ConfigError("options do not fit", ["temperature"]))
    assert labels(metrics) == {"cards", "cards+tone", "base", "other"}
    found = figures(metrics.text().decode())
    assert found["adapterkit_requests_total", "cards", "refused"] == 3
    assert found["adapterkit_requests_total", "cards+tone", "refused"] == 1
    assert found["adapterkit_requests_total", "base", "refused"] == 1
    assert found["adapterkit_requests_total", "other", "refused"] == 4


def test_what_became_of_requests():
    metrics = Metrics()
    metrics.finished(answered("cards", "cancelled"))
    metrics.failed(answered("cards"), DeadlineError("late"))
    metrics.failed(answered("cards"), ValueError("broken"))
    metrics.finished(Answer("a", Choice(""), 1))  # given up before it had a place
    found = figures(metrics.text().decode())
    for outcome in ("cancelled", "deadline", "failed"):
        assert found["adapterkit_requests_total", *sorted(("cards", outcome))] == 1
    assert found["adapterkit_requests_total", "base", "cancelled"] == 1


def test_loads_and_evictions():
    metrics = Metrics()
    metrics.loaded("d", "device", 5, 0.1)
    metrics.load_failed("d", ValueError())
    metrics.evicted("d", "host", 5)
    found = figures(metrics.text().decode())
    assert found["adapterkit_loads_total", "device", "loaded"] == 1
    assert found["adapterkit_loads_total", "failed", "host"] == 1
    assert found["adapterkit_evictions_total", "host"] == 1
    assert found["adapterkit_load_seconds_sum", "device"] == pytest.approx(0.1)


def test_two_engines_count_apart():
    one, two = Metrics(), Metrics()
    one.finished(answered("cards"))
    assert labels(two) == set()
