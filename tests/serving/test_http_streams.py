"""Streams, clients that leave, engines that are full, late or stopped; and what the log says of it."""

import json
import logging
import socket
import threading
import time

import httpx
import pytest

from adapterkit.errors import ArtifactError
from adapterkit.serving import Answer, Choice, Piece, Usage
from adapterkit.serving.http import create_app
from adapterkit.serving.http.logs import JsonLines

from .engines import until
from .http_server import KEYS, USER, as_who, client_of, engine_of, listening

CHAT = {"model": "cards", "messages": [{"role": "user", "content": "x"}], "temperature": 0}
SECRET = "Xylophone"


@pytest.fixture
def engine(example_base):
    with engine_of(example_base, max_batch=1, max_queue=2) as engine:
        yield engine


def ask_and_leave(url, body, *, after):
    """Ask, and close the connection when so many bytes have been answered."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""])
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + data)
        seen = b""
        while len(seen) < after:
            seen += connection.recv(1024)
        if not after:
            time.sleep(0.3)
    return seen


def test_a_stream_is_framed_as_server_sent_events(engine):
    asked = {**CHAT, "max_tokens": 5, "stream": True}
    with client_of(engine) as client, client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        text = response.read().decode()
    events = text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]


def test_a_stream_is_of_whole_lines_whatever_is_said(engine, monkeypatch):
    said = "one\u2028two\x85three\x0bfour\nfive"  # clients that split text into lines take each of these for an end

    def submit(*_, **__):
        answer = Answer("a", Choice("cards", (("d", 1.0),), "cards"), 3)
        answer.put(Piece(said))
        answer.finish("stop", Usage(3, 1))
        return answer

    monkeypatch.setattr(engine, "submit", submit)
    body = {**CHAT, "stream": True}
    with client_of(engine) as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines) == said


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_gives_the_request_up(engine, stream):
    body = {**CHAT, "max_tokens": 400, "stream": stream, "n": 2}
    with listening(engine) as url:
        ask_and_leave(url, body, after=400 if stream else 0)
        until(lambda: engine.stats().running == engine.stats().waiting == 0)
    assert engine.stats().tokens < 400
    assert 'outcome="cancelled"} 2.0' in engine.watcher.text().decode()


def busy(engine, requests):
    return [engine.submit("x", model="cards", max_new_tokens=400) for _ in range(requests)]


def test_a_full_engine_says_when_to_ask_again(engine):
    with client_of(engine) as client:
        answers = busy(engine, 1)
        until(lambda: engine.stats().running == 1)
        answers += busy(engine, 2)
        response = client.post("/v1/chat/completions", json=CHAT)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "rate_limit_exceeded"
        for answer in answers:
            answer.cancel()


def test_where_one_of_several_answers_is_refused_none_is_made(engine):
    with client_of(engine) as client:
        answers = busy(engine, 1)
        until(lambda: engine.stats().running == 1)
        assert client.post("/v1/chat/completions", json={**CHAT, "n": 3}).status_code == 429
        until(lambda: engine.stats().waiting == 0)
        answers[0].cancel()


def test_a_request_that_takes_too_long_is_given_up(example_base):
    with engine_of(example_base, timeout=0.05) as engine, client_of(engine) as client:
        body = {**CHAT, "max_tokens": 400}
        response = client.post("/v1/chat/completions", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_what_fails_before_a_stream_begins_has_a_status(engine, monkeypatch):
    def fail(digest):
        raise ArtifactError("/srv/secret/place is damaged")

    monkeypatch.setattr(engine.residency, "_fetch", fail)
    with client_of(engine) as client:
        for stream in (True, False):
            response = client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert (response.status_code, response.json()["error"]["code"]) == (503, "adapter_unavailable")
            assert "/srv/secret" not in response.text


def test_what_fails_within_a_stream_is_said_in_it(engine):
    with client_of(engine) as client:
        body = {**CHAT, "max_tokens": 400, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            threading.Thread(target=engine.close).start()
            rest = [line for line in lines if line]
    assert response.status_code == 200
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert "data: [DONE]" not in rest


def test_an_engine_that_drains_is_not_ready_and_finishes_what_it_has(engine):
    with client_of(engine) as client:
        (answer,) = busy(engine, 1)
        until(lambda: engine.stats().running == 1)
        closing = threading.Thread(target=engine.close, kwargs={"drain": 60})
        closing.start()
        until(lambda: engine.state != "ready")
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        refused = client.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
        assert answer.result()
        assert answer.finish_reason in ("stop", "length")
        closing.join()
        assert client.get("/ready").json() == {"status": "stopped"}


def test_a_failure_of_the_servers_own_tells_its_number_and_nothing_else(engine, monkeypatch, caplog):
    def fail(model):
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(engine.catalogue, "resolve", fail)
    with client_of(engine) as client, caplog.at_level(logging.INFO, "adapterkit"):
        response = client.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 500
    assert SECRET not in response.text
    name = response.headers["x-request-id"]
    assert name in response.json()["error"]["message"]
    assert any(name == getattr(one, "fields", {}).get("id") and one.exc_info for one in caplog.records)


def test_the_log_has_a_line_for_each_request_and_no_prompt_or_key(engine, caplog):
    chat = {**CHAT, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 3}
    with client_of(engine, USER, keys=KEYS) as client, caplog.at_level(logging.INFO, "adapterkit"):
        client.post("/v1/chat/completions", json=chat, headers={"x-request-id": "a1"})
        client.post("/v1/chat/completions", json={**chat, "stream": True}, headers={"x-request-id": "a2"})
        client.post("/v1/chat/completions", json={**chat, "model": SECRET}, headers={"x-request-id": "a3"})
        client.get("/v1/models", params={"q": SECRET}, headers={**as_who("wrong-key"), "x-request-id": "a4"})
        until(lambda: sum(one.getMessage() == "request" for one in caplog.records) == 4)
    lines = [JsonLines().format(one) for one in caplog.records]
    told = {line["id"]: line for line in map(json.loads, lines) if line["message"] == "request"}
    assert [told[name]["status"] for name in ("a1", "a2", "a3", "a4")] == [200, 200, 404, 401]
    for name in ("a1", "a2"):
        assert told[name]["adapter"] == "cards"
        assert told[name]["completion_tokens"] == 3
        assert told[name]["path"] == "/v1/chat/completions"
    assert not any(word in line for line in lines for word in (SECRET, USER, "wrong-key"))


def test_the_application_can_be_mounted_in_another(engine):
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    outer = FastAPI()
    outer.mount("/llm", create_app(engine))
    with TestClient(outer, base_url="http://localhost") as client:
        assert client.get("/llm/v1/models").status_code == 200
        assert client.post("/llm/v1/chat/completions", json={**CHAT, "max_tokens": 1}).status_code == 200
        assert client.post("/llm/v1/adapters", json={}).status_code == 403


def test_an_upgrade_is_not_a_way_around_the_keys(engine):
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with listening(engine, keys=KEYS) as url:
        for path in ("/v1/models", "/v1/adapters"):
            assert httpx.get(f"{url}{path}", headers=upgrade).status_code == 401
            answered = httpx.get(f"{url}{path}", headers={**upgrade, **as_who(USER)})
            assert answered.status_code == 200  # the upgrade is passed over
            assert "sec-websocket-accept" not in answered.headers


def test_a_websocket_is_closed_wherever_it_leads(engine):
    from fastapi.testclient import TestClient
    from starlette.websockets import WebSocketDisconnect

    reached = []

    async def reach(websocket):
        reached.append(websocket)
        await websocket.accept()

    app = create_app(engine)
    app.router.add_websocket_route("/talk", reach)
    with TestClient(app, base_url="http://localhost") as client:
        for path in ("/talk", "/v1/chat/completions"):
            with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect(path):
                pass
            assert caught.value.code == 1008
    assert reached == []
