"""Bytes that no HTTP client sends, and clients that take their time: refused or let go, and the server goes on."""

import json
import socket

import httpx
import pytest

from .http_server import ADMIN, KEYS, USER, as_who, engine_of, listening

CHAT = json.dumps({"model": "cards", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode()
HOST = b"Host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
KEY = f"Authorization: Bearer {ADMIN}\r\n".encode()
GARBAGE = {
    "nothing": b"",
    "empty lines": b"\r\n" * 50_000,
    "zeros": bytes(4096),
    "every byte": bytes(range(256)) * 16 + b"\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(32),
    "no version": b"GET /v1/models\r\n\r\n",
    "another version": b"GET /v1/models HTTP/9.9\r\n" + HOST + b"\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n",
    "another host's address": b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an unknown method": b"BREW /v1/models HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a tunnel": b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a folded header": b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "a header with a zero": b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "a header without a name": b"GET /v1/models HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "a huge header": b"GET /v1/models HTTP/1.1\r\n" + HOST + KEY + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n",
    "many headers": b"GET /v1/models HTTP/1.1\r\n" + HOST + KEY + b"X: y\r\n" * 100_000 + b"\r\n",
    "a header without an end": b"GET /v1/models HTTP/1.1\r\n" + HOST + KEY + b"X: " + b"x" * 2_000_000,
    "a huge path": b"GET /v1/models/" + b"x" * 2_000_000 + b" HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a path with a zero": b"DELETE /v1/adapters/ca%00rds HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a path of no characters": b"DELETE /v1/adapters/%ff%fe%c0%af HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a path upwards": b"GET /v1/models/../../../../etc/passwd HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a path upwards in disguise": b"GET /v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "an absolute path": b"GET //etc/passwd HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "a percent sign": b"DELETE /v1/adapters/%zz% HTTP/1.1\r\n" + HOST + KEY + b"\r\n",
    "two lengths": POST + KEY + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length and chunks": POST + KEY + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": POST + KEY + b"Content-Length: -1\r\n\r\n",
    "a length in letters": POST + KEY + b"Content-Length: ten\r\n\r\n",
    "a length without end": POST + KEY + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n",
    "an unknown coding": POST + KEY + b"Transfer-Encoding: gzip\r\n\r\n" + CHAT,
    "a chunk that is none": POST + KEY + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n" + CHAT,
    "a chunk without end": POST + KEY + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 15 + b"\r\n" + CHAT,
    "a body cut off": POST + KEY + b"Content-Length: 1000\r\n\r\n" + CHAT,
}


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base, max_length=64) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine):
    with listening(engine, keys=KEYS) as url:
        yield url


@pytest.fixture(scope="module")
def impatient(engine):
    with listening(engine, keys=KEYS, read_timeout=0.3) as url:
        yield url


def connect(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def rest(connection):
    """All that still comes, until the server closes the connection."""
    seen = b""
    try:
        while part := connection.recv(65_536):
            seen += part
    except ConnectionError:  # it has not read all that was sent
        pass
    return seen


def is_well(url):
    """Whether it answers, right."""
    response = httpx.post(
        f"{url}/v1/chat/completions", content=CHAT, headers={**as_who(USER), "content-type": "application/json"}
    )
    return response.status_code == 200 and httpx.get(f"{url}/ready").status_code == 200


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_and_touches_nothing(engine, url, sent):
    before = engine.catalogue.listed()
    with connect(url) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # it has heard enough
            pass
        answer = rest(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert b"root:" not in answer
    assert engine.catalogue.listed() == before
    assert is_well(url)


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\n" + HOST + b"X-Slow: "])
def test_a_head_that_does_not_come_is_not_waited_for(impatient, sent):
    with connect(impatient) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"X-Slow: ")
        connection.settimeout(0.05)
        for _ in range(600):
            try:
                connection.sendall(b"x")
                assert connection.recv(1) == b""
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("it still waits")
    assert is_well(impatient)


def test_a_body_that_does_not_come_is_not_waited_for(impatient):
    with connect(impatient) as connection:
        connection.sendall(POST + KEY + b"Content-Length: 1000\r\n\r\n" + CHAT)
        answer = rest(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "0.3 seconds" in json.loads(body)["error"]["message"]
    assert is_well(impatient)


def test_after_a_refusal_the_rest_of_a_body_is_not_waited_for(impatient):
    with connect(impatient) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_an_answer_may_take_longer_than_its_request(impatient):
    body = {"model": "cards", "prompt": "The card", "max_tokens": 40, "n": 8, "temperature": 1, "stream": True}
    with httpx.Client(headers=as_who(USER), timeout=60) as client:
        with client.stream("POST", f"{impatient}/v1/completions", json=body) as response:
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert client.get(f"{impatient}/v1/models").status_code == 200
