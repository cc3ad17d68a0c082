"""The log: one line of JSON for each request, with its name, and without what was said."""

import json
import logging
import time

import pytest

from adapterkit.serving.http.logs import JsonLines

from .http_server import KEYS, USER, client_of, engine_of

ASKED = {"model": "cards", "prompt": "the-secret", "max_tokens": 4, "temperature": 0}


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base) as engine:
        yield engine


@pytest.fixture
def lines(caplog):
    """What has been logged of requests, as it is written; waits for so many lines."""

    def wait(count=1):
        while sum(record.getMessage() == "request" for record in caplog.records) < count:
            time.sleep(0.01)  # the line follows the answer; pytest ends this where it does not
        written = [JsonLines().format(record) for record in caplog.records]
        assert not any("\n" in line for line in written)
        assert not any(said in line for line in written for said in ("the-secret", USER))
        return [line for line in map(json.loads, written) if line["message"] == "request"]

    with caplog.at_level(logging.INFO, "adapterkit"):
        yield wait


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_says_who_answered_what_it_took_and_how_long(engine, lines, stream):
    with client_of(engine, USER, keys=KEYS) as client:
        client.post("/v1/completions", json={**ASKED, "model": "cards*0.5", "stream": stream})
    (line,) = lines()
    assert line["model"] == "cards*0.5"
    assert line["adapter"] == "cards"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/completions", 200)
    assert (line["completion_tokens"], line["finish"]) == (4, "length")
    assert line["prompt_tokens"] > 0
    assert 0 <= line["queue_milliseconds"] <= line["first_token_milliseconds"] <= line["milliseconds"]
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 64])
def test_a_name_that_is_given_is_kept(engine, lines, name):
    with client_of(engine) as client:
        answer = client.post("/v1/completions", json=ASKED, headers={"x-request-id": name})
    assert answer.headers["x-request-id"] == name == lines()[0]["id"]
    assert name in answer.json()["id"]


@pytest.mark.parametrize("name", ["", "x" * 65, "two words", "a/b", '"', "é".encode("latin-1")])
def test_a_name_that_is_none_is_replaced(engine, lines, name):
    with client_of(engine) as client:
        answer = client.get("/v1/models", headers={"x-request-id": name})
    given = answer.headers["x-request-id"]
    assert given.startswith("req-")
    assert given == lines()[0]["id"]


def test_what_is_refused_has_a_line_too(engine, lines):
    with client_of(engine, "no-such-key", keys=KEYS) as client:
        client.post("/v1/completions", json=ASKED)
    (line,) = lines()
    assert line["status"] == 401
    assert "model" not in line
