"""What the client may do while it works for us: where it goes, how much it takes, for how long.

The client is one for the whole process. Its hooks are set once, and act only within :func:`guarded`, in this thread: whatever
else the process does on the Hub goes on as before.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from huggingface_hub import get_session

from adapterkit import RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["READING", "WRITING", "Guard", "endpoint", "guarded", "is_allowed"]

HUB_HOSTS = ("huggingface.co", "hf.co")
"""Where the public Hub keeps its files: on these and hosts below them."""
MORE_HOSTS = "ADAPTERKIT_HUB_HOSTS"
"""Names hosts, with their ports and commas between, from which another server than the public Hub lets its files be fetched; and
"xet", if they may come from wherever it has its Xet storage."""
PLAIN = ("", "identity")
XET = "xet"
XET_HASH = "X-Xet-Hash"


@attrs.frozen
class Guard:
    """What is allowed.

    Attributes:
        most: Bytes of one answer.
        seconds: For one answer.
        elsewhere: Whether requests without a token may go to other hosts, as uploads to a storage do.
    """

    most: int = 32 << 20
    seconds: float = 180.0
    elsewhere: bool = False


READING = Guard()
WRITING = Guard(elsewhere=True)
_current: ContextVar[Guard | None] = ContextVar("adapterkit_hub_guard", default=None)
_setting = threading.Lock()


@contextlib.contextmanager
def guarded(guard: Guard) -> Iterator[None]:
    """Hold what the client does in this block, in this thread, to ``guard``."""
    _set_hooks(get_session())
    token = _current.set(guard)
    try:
        yield
    finally:
        _current.reset(token)


def endpoint() -> str:
    """Where the Hub is: ``HF_ENDPOINT``, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_allowed(url: str) -> bool:
    """Whether it is on the server itself, on the public Hub's own hosts where that is it, or on a host that the user has named."""
    own, host = urlsplit(endpoint()).netloc, urlsplit(url).netloc
    if own in HUB_HOSTS and any(host == one or host.endswith(f".{one}") for one in HUB_HOSTS):
        return True
    return host == own or host in _further()


def _further() -> list[str]:
    return [one.strip() for one in os.environ.get(MORE_HOSTS, "").split(",") if one.strip()]


def _set_hooks(client: Any) -> None:
    with _setting:
        hooks = client.event_hooks
        if _before not in hooks.get("request", ()):
            client.event_hooks = {
                "request": [*hooks.get("request", ()), _before],
                "response": [*hooks.get("response", ()), _after],
            }


def _before(request: Any) -> None:
    """Called for each request, also for those that redirects make."""
    guard = _current.get()
    if guard is None:
        return
    if not is_allowed(str(request.url)) and not (guard.elsewhere and "authorization" not in request.headers):
        raise RemoteError(
            f"{endpoint()} sends to another host, {urlsplit(str(request.url)).netloc!r:.100}, which is not followed; if it keeps "
            f"its files there, name it in {MORE_HOSTS}"
        )
    request.headers["Accept-Encoding"] = "identity"


def _after(response: Any) -> None:
    guard = _current.get()
    if guard is None:
        return
    if urlsplit(endpoint()).netloc not in HUB_HOSTS and XET not in _further():
        response.headers.pop(
            XET_HASH, None
        )  # Xet goes where a server says, and no hook sees it: without this, plain HTTP is used
    if response.headers.get("Content-Encoding", "") not in PLAIN:  # what it would unfold to is not known
        raise RemoteError(f"{endpoint()} gives an answer that is packed, and was asked for a plain one")
    stream = sys.modules[type(response).__module__.partition(".")[0]].SyncByteStream
    counted = type("Counted", (_Counted, stream), {})
    response.stream = counted(response.stream, guard)


class _Counted:
    """The bytes of an answer, up to what is allowed."""

    def __init__(self, stream: Any, guard: Guard) -> None:
        self._stream, self._guard = stream, guard

    def __iter__(self) -> Iterator[bytes]:
        got, until = 0, time.monotonic() + self._guard.seconds
        for data in self._stream:
            got += len(data)
            if got > self._guard.most:
                raise RemoteError(f"{endpoint()} sends more than the {self._guard.most:,} bytes that may come")
            if time.monotonic() > until:
                raise RemoteError(f"{endpoint()} takes more than {self._guard.seconds:.0f} seconds for one answer")
            yield data

    def close(self) -> None:
        self._stream.close()
