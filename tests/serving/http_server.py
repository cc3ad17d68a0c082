"""What the tests of the HTTP server share: an engine on a small base, and uvicorn on a free port of loopback."""

import contextlib

import httpx

from adapterkit.serving import Engine, http
from adapterkit.serving.http import Keys, Settings
from adapterkit.serving.metrics import Metrics
from tests.support import make_adapter

USER, ADMIN = "user-key-1", "admin-key-1"
KEYS = Keys.of([USER], [ADMIN])


def as_who(key):
    return {"authorization": f"Bearer {key}"} if key else {}


@contextlib.contextmanager
def engine_of(base, *, store=None, **options):
    """An engine with two adapters; ``cards`` and ``tone``."""
    adapters = {"cards": make_adapter(base, seed=1), "tone": make_adapter(base, seed=2)}
    with Engine(base, adapters, store=store, watcher=Metrics(), **options) as engine:
        yield engine


@contextlib.contextmanager
def listening(engine, **settings):
    """The URL of a server, which runs in a thread."""
    with http.listening(engine, Settings(port=0, **settings)) as url:
        yield url


@contextlib.contextmanager
def client_of(engine, key="", **settings):
    """A client of a server."""
    with listening(engine, **settings) as url, httpx.Client(base_url=url, headers=as_who(key), timeout=60) as client:
        yield client
