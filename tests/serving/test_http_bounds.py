"""What one client may take of the server: large bodies of nonsense, requests that wait to be read, connections."""

import json
import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import ValidationError

from adapterkit.serving.http import running
from adapterkit.serving.http.administration import AdapterAsked
from adapterkit.serving.http.parameters import MOST_DEPTH, MOST_KEYS
from adapterkit.serving.http.prompts import ChatAsked, CompletionAsked
from adapterkit.serving.http.readers import THREADS
from adapterkit.serving.stepping.constraints import MOST_SCHEMA

from .engines import until
from .http_server import client_of, engine_of, listening

TURN = {"role": "user", "content": "x"}
CHAT = {"model": "cards", "messages": [TURN], "max_tokens": 1, "temperature": 0}
TEXT = {"model": "cards", "prompt": "x", "max_tokens": 1}
MANY = 100_000
CALL = {"function": {"name": "f"}}
BAD = {
    **{f"prompt of {one}": (CompletionAsked, {**TEXT, "prompt": [one] * MANY}) for one in (-1, "", 1.5, None)},
    "prompt of []": (CompletionAsked, {**TEXT, "prompt": [[]] * MANY}),
    "prompts of -1": (CompletionAsked, {**TEXT, "prompt": [[-1] * MANY]}),
    "prompt that ends badly": (CompletionAsked, {**TEXT, "prompt": [1] * MANY + [-1] * MANY}),
    "stop": (CompletionAsked, {**TEXT, "stop": [""] * MANY}),
    "messages": (ChatAsked, {**CHAT, "messages": [{}] * MANY}),
    "parts": (ChatAsked, {**CHAT, "messages": [{"role": "user", "content": [{}] * MANY}]}),
    "tools": (ChatAsked, {**CHAT, "tools": [{}] * MANY}),
    "calls": (ChatAsked, {**CHAT, "messages": [{"role": "assistant", "tool_calls": [{}] * MANY}]}),
    "keys": (ChatAsked, {**CHAT, **{f"key-{number}": 0 for number in range(MANY)}}),
    "keys of a message": (ChatAsked, {**CHAT, "messages": [{**TURN, **{f"{number}": 0 for number in range(MANY)}}]}),
    "keys of an adapter": (AdapterAsked, {f"key-{number}": 0 for number in range(MANY)}),
}


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base, max_batch=4, max_queue=8) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine):
    with client_of(engine) as client:
        yield client


def metrics_of(client):
    return client.get("/metrics").text


def told(response):
    assert response.status_code == 400
    return response.json()["error"]


# -- bodies


@pytest.mark.parametrize(("kind", "body"), BAD.values(), ids=BAD)
def test_millions_of_mistakes_are_a_few_errors(kind, body):
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() < 10


@pytest.mark.parametrize("prompt", [[-1], [""], [[]]])
def test_a_large_body_of_mistakes_is_refused(client, prompt):
    body = {**TEXT, "prompt": prompt * 2_000_000}
    error = told(client.post("/v1/completions", json=body))
    assert error["param"] == "prompt[0]"
    assert client.post("/v1/completions", json=TEXT).status_code == 200


def test_as_many_keys_as_anybody_needs(client):
    body = {**CHAT, "metadata": {str(number): "x" for number in range(MOST_KEYS)}}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    body = {**CHAT, **{f"key-{number}": None for number in range(MOST_KEYS)}}
    assert "at most 100" in told(client.post("/v1/chat/completions", json=body))["message"]


@pytest.mark.parametrize("function", [{}, {"name": 5}, {"name": ""}, {"name": "x" * 201}, {"name": None}, 5, []])
def test_a_tool_needs_a_name(client, function):
    body = {**CHAT, "tools": [{"type": "function", "function": function}]}
    assert told(client.post("/v1/chat/completions", json=body))["param"] == "tools[0].function"


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"properties": value}
    return value


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, 500, 800])
def test_what_is_nested_deeply_is_refused(client, depth):
    tool = {"type": "function", "function": {"name": "f", "parameters": nested(depth)}}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": json.dumps(nested(depth))}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": nested(depth)}}
    for more in (
        {"tools": [tool]},
        {"messages": [TURN, {"role": "assistant", "tool_calls": [call]}]},
        {"response_format": wanted},
    ):
        assert "nested too deeply" in told(client.post("/v1/chat/completions", json={**CHAT, **more}))["message"]


def test_what_is_nested_as_schemas_are_is_taken():
    tool = {"type": "function", "function": {"name": "f", "parameters": nested(MOST_DEPTH - 1)}}
    asked = ChatAsked.model_validate({**CHAT, "tools": [tool]})
    assert json.loads(asked.prompts()[0].tools) == [tool]


def test_a_schema_is_as_long_as_the_engine_takes():
    schema = {"title": "x" * MOST_SCHEMA}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(ValidationError, match="65,536"):
        ChatAsked.model_validate({**CHAT, "response_format": wanted})


@pytest.mark.parametrize(
    ("path", "more", "param", "said"),
    [
        ("completions", {"stop": [""]}, "stop[0]", "at least 1 character"),
        ("completions", {"stop": ""}, "stop", "at least 1 character"),
        ("completions", {"stop": 5}, "stop", "valid string"),
        ("completions", {"prompt": [3, -1]}, "prompt[1]", "greater than or equal to 0"),
        ("completions", {"prompt": ["a", ""]}, "prompt[1]", "at least 1 character"),
        ("completions", {"prompt": [[3], [4, -1]]}, "prompt[1][1]", "greater than or equal to 0"),
        ("completions", {"prompt": ["x"] * 17}, "prompt", "at most 16"),
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "valid string"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "required",
        ),
        ("chat/completions", {"messages": [{"content": "x"}]}, "messages[0].role", "required"),
        ("chat/completions", {"messages": None}, "messages", "valid list"),
    ],
)
def test_a_mistake_is_told_with_its_place(client, path, more, param, said):
    error = told(client.post(f"/v1/{path}", json={**(TEXT if path == "completions" else CHAT), **more}))
    assert error["param"] == param
    assert said in error["message"]
    assert error["message"].startswith(f"{param}: ")
    assert "more)" not in error["message"]


def test_further_mistakes_are_counted(client):
    assert told(client.post("/v1/completions", json={**TEXT, "n": 0, "stop": 5}))["message"].endswith("(and 1 more)")


# -- requests that wait to be read


@pytest.fixture
def blocked(engine, monkeypatch):
    """The engine reads nothing until the event is set; and what came as far as that."""
    release, begun, submit = threading.Event(), [], engine.submit

    def wait(*given, **named):
        begun.append(named["id"])
        assert release.wait(60)
        return submit(*given, **named)

    monkeypatch.setattr(engine, "submit", wait)
    yield release, begun
    release.set()


def test_what_waits_to_be_read_is_bounded_and_holds_nothing_else_up(client, engine, blocked):
    release, begun = blocked
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(client.post, "/v1/chat/completions", json=CHAT) for _ in range(50)]
        until(lambda: sum(one.done() for one in waiting) == 50 - THREADS - engine.options.max_queue)
        for path in ("/v1/models", "/v1/adapters", "/health"):  # these take threads that all share
            assert client.get(path, timeout=10).status_code == 200
        assert len(begun) == THREADS
        release.set()
        answers = [one.result() for one in waiting]
    late = [one for one in answers if one.status_code == 429]
    assert len(late) >= 50 - THREADS - engine.options.max_queue
    assert all(int(one.headers["retry-after"]) >= 1 for one in late)
    assert {one.json()["error"]["code"] for one in late} == {"rate_limit_exceeded"}
    assert {one.status_code for one in answers} == {200, 429}
    assert f'outcome="overloaded"}} {len(late)}.0' in metrics_of(client)


def test_what_nobody_waits_for_is_not_read(engine, client, blocked):
    release, begun = blocked
    data = json.dumps(CHAT).encode()
    host, port = client.base_url.host, client.base_url.port
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    sent = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    with ThreadPoolExecutor(THREADS) as pool:
        first = [pool.submit(client.post, "/v1/chat/completions", json=CHAT) for _ in range(THREADS)]
        until(lambda: len(begun) == THREADS)
        for _ in range(3):
            with socket.create_connection((host, port)) as connection:
                connection.sendall(sent)
                time.sleep(0.3)
        time.sleep(0.3)
        release.set()
        assert [one.result().status_code for one in first] == [200] * THREADS
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert len(begun) == THREADS + 1


# -- connections


def test_idle_connections_lock_nobody_out(engine, monkeypatch):
    monkeypatch.setattr(running, "bounds", lambda _: (8, 16))
    with listening(engine) as url:
        host, port = url.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port)), timeout=20) for _ in range(30)]
        assert httpx.get(f"{url}/health", timeout=10).status_code == 200
        assert [one.recv(1) for one in idle[:22]] == [b""] * 22  # the oldest are let go
        idle[-1].sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert idle[-1].recv(15) == b"HTTP/1.1 200 OK"
        for one in idle:
            one.close()


def test_a_connection_with_a_request_under_way_is_kept(engine, blocked, monkeypatch):
    monkeypatch.setattr(running, "bounds", lambda _: (4, 16))
    release, begun = blocked
    with listening(engine) as url, ThreadPoolExecutor(4) as pool:
        host, port = url.removeprefix("http://").split(":")
        asked = [pool.submit(httpx.post, f"{url}/v1/chat/completions", json=CHAT, timeout=60) for _ in range(4)]
        until(lambda: len(begun) == 4)
        with socket.create_connection((host, int(port)), timeout=20) as late:
            assert late.recv(1) == b""
        release.set()
        assert [one.result().status_code for one in asked] == [200] * 4


@pytest.mark.parametrize(
    ("files", "expected"), [(1024, (768, 128)), (64, (48, 16)), (16, (32, 16)), (math.inf, (10_000, 2048))]
)
def test_connections_leave_room_for_files(files, expected):
    assert running.bounds(files) == expected
