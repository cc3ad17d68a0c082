"""The server: uvicorn, told to stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from adapterkit.errors import ConfigError, EngineError

from .app import create_app
from .connections import Connection
from .logs import log_to_stderr
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from adapterkit.serving.engine import Engine

__all__ = ["Server", "check_port", "listening", "run"]

GRACE = 5.0
"""Seconds beyond the drain until connections are cut: what was cancelled still says so to its client."""
LEAST_CONNECTIONS, MOST_CONNECTIONS = 32, 10_000
MOST_WAITING = 2048
"""Connections that may wait to be accepted."""


class Server(uvicorn.Server):
    """Serves an application; on SIGTERM or SIGINT it takes no more requests, and the engine answers those that it has.

    Attributes:
        url: Where it listens, once it does.
    """

    def __init__(
        self, app: FastAPI, engine: Engine, settings: Settings, on_listening: Callable[[str], None] = lambda _: None
    ) -> None:
        most, at_once = bounds(open_files())
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # the gate writes a line for each request
            server_header=False,
            proxy_headers=False,  # what a client says of itself is not believed
            http=partial(Connection, read_timeout=settings.read_timeout, most=most),  # type: ignore[arg-type]
            backlog=at_once,
            timeout_keep_alive=math.ceil(settings.read_timeout),
            ws="none",
            timeout_graceful_shutdown=int(settings.drain + GRACE),
        )
        super().__init__(config)
        self._engine, self._settings, self._on_listening = engine, settings, on_listening
        self.url = ""

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            for one in self.servers[0].sockets if self.config.backlog < MOST_WAITING else ():
                with socket.socket(fileno=os.dup(one.fileno())) as listener:
                    listener.listen(MOST_WAITING)  # to asyncio, how many wait and how many it accepts at once are one
            port = self.servers[0].sockets[0].getsockname()[1]
            host = self._settings.host
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._on_listening(self.url)

    async def shutdown(self, sockets: Any = None) -> None:
        """Listen no more, and send off what is still to be told of requests: the signal may be the end of the process."""
        await super().shutdown(sockets)
        await asyncio.to_thread(self._engine.watcher.flush)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop in order; the second signal stops at once."""
        if not self.should_exit:
            drain = {"drain": self._settings.drain}
            threading.Thread(target=self._engine.close, kwargs=drain, name="adapterkit-drain", daemon=True).start()
        super().handle_exit(sig, frame)


def check_port(settings: Settings) -> None:
    """See that the server will be able to listen, before a base is read for it.

    Raises:
        ConfigError: Something else listens there, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as tried:
            if os.name != "nt":
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise ConfigError("settings do not fit", [f"port: nothing can listen at {where}: {error.strerror}"]) from error


def open_files() -> float:
    """How many files and connections this process may have open."""
    if os.name == "nt":
        return math.inf
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def bounds(files: float) -> tuple[int, int]:
    """How many connections may be open, and how many are accepted at once, before others are closed for them.

    Together they leave an eighth of what may be open to files.
    """
    most = min(max(files * 3 / 4, LEAST_CONNECTIONS), MOST_CONNECTIONS)
    return int(most), int(min(max(files / 8, LEAST_CONNECTIONS // 2), MOST_WAITING))


def run(engine: Engine, settings: Settings | None = None, on_listening: Callable[[str], None] = lambda _: None) -> None:
    """Serve until told to stop, then close the engine.

    Args:
        engine: The engine.
        settings: How to listen, and whom to let in.
        on_listening: Called with the server's URL once it listens.

    Raises:
        ConfigError: Settings that do not fit.
    """
    chosen = settings or Settings.from_environment()
    app = create_app(engine, chosen)
    log_to_stderr("adapterkit", "uvicorn")
    try:
        Server(app, engine, chosen, on_listening).run()
    finally:
        engine.close()


@contextlib.contextmanager
def listening(engine: Engine, settings: Settings | None = None) -> Iterator[str]:
    """Serve from a thread of its own for a block: in a test, in a notebook, beside other work. Gives the server's URL.

    Args:
        engine: The engine, which stays the caller's to close.
        settings: How to listen, and whom to let in; by default at a free port of this machine, with the keys of the environment.

    Raises:
        ConfigError: Settings that do not fit.
        EngineError: Nothing can listen there.
    """
    chosen = settings or Settings.from_environment(port=0)
    begun = threading.Event()
    server = Server(create_app(engine, chosen), engine, chosen, lambda _: begun.set())

    def serve() -> None:
        try:
            with contextlib.suppress(SystemExit):  # uvicorn's way to say that it cannot listen
                server.run()
        finally:
            begun.set()

    thread = threading.Thread(target=serve, name="adapterkit-http", daemon=True)
    thread.start()
    try:
        begun.wait()
        if not server.url:
            raise EngineError(f"nothing can listen at {chosen.host}:{chosen.port}: is another server there?")
        yield server.url
    finally:
        server.should_exit = True
        thread.join()
