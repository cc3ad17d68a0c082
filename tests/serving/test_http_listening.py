"""A server for a block of code."""

import socket

import httpx
import pytest

from adapterkit import EngineError
from adapterkit.serving.http import Settings, listening

from .http_server import engine_of


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base) as engine:
        yield engine


def test_it_listens_within_the_block_only_and_leaves_the_engine_alone(engine, monkeypatch):
    monkeypatch.setenv("ADAPTERKIT_API_KEY", "key-1")
    with listening(engine) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 401, "the keys are those of the environment"
        assert httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer key-1"}).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    assert engine.state == "ready"
    assert engine.generate("x", max_new_tokens=1) is not None


def test_a_port_that_is_taken_is_an_error_and_no_waiting(engine):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(EngineError, match=f"nothing can listen at 127.0.0.1:{port}"),
            listening(engine, Settings(port=port)),
        ):
            pytest.fail("it listens")
