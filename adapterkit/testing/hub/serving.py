"""Sockets: what comes in is read to its end, what goes out is sent as it is to be, lies and all."""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from .messages import Answer, HangUp, Request, Seen

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Server"]


class Server(ThreadingHTTPServer):
    """One of the Hub's addresses."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: Hub, place: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.hub, self.place = hub, place
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Close every connection."""
        self.shutdown()
        self.server_close()
        self._thread.join()
        for connection in list(self.connections):
            _close(connection)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        try:
            request = self._read()
            answer = self._answer(request)
        except HangUp:
            self._hang_up()
        else:
            self._send(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing: :attr:`Hub.requests` does."""

    def _answer(self, request: Request) -> Answer:
        status = None
        try:
            answer = self.server.hub.answer(request)
            status = answer.status
        finally:
            seen = Seen(request.place, request.method, request.path, status, request.token is not None)
            self.server.hub.requests.append(seen)
        return answer

    def _read(self) -> Request:
        address = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(
            self.server.place,
            self.command,
            address.path,
            parse_qs(address.query, keep_blank_values=True),
            headers,
            self._body(),
        )

    def _body(self) -> bytes:
        """The whole body.

        Raises:
            HangUp: The client went away in the middle of it: half a request is none.
        """
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._exactly(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0] or b"-1", 16):
            pieces.append(self._exactly(size))
            self._exactly(len(b"\r\n"))
        self._exactly(len(b"\r\n"))
        return b"".join(pieces)

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size) if size >= 0 else b""
        if len(data) != size:
            raise HangUp
        return data

    def _send(self, answer: Answer) -> None:
        body = answer.body
        length = len(body) if isinstance(body, bytes) and answer.claimed is None else answer.claimed
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in [body[: answer.cut]] if isinstance(body, bytes) else body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if length is None else piece)
        if length is None:
            self.wfile.write(b"0\r\n\r\n")
        if answer.cut is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        _close(self.connection)


def _close(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was faster
