"""The ways to misbehave: each is a function that spoils an answer, or puts another in its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import attrs

from .messages import Answer, HangUp, HubError, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .faults import Fault
    from .hub import Hub

__all__ = ["KINDS", "Kind", "Strike", "other_bytes"]

_ENDLESS = 1 << 26  # bytes: a client that takes as much takes anything
_FILES = "/resolve/|/[0-9a-f]{64}/"  # the Hub's own files and those in its storage
_COMMITS = "^/api/models/[^/]+/[^/]+/commit/"


@attrs.frozen
class Strike:
    """One request that a fault is for.

    Attributes:
        fault: The fault.
        hub: The Hub.
        request: The request.
        answer: Gives the true answer; carries the request out when it is called first.
    """

    fault: Fault
    hub: Hub
    request: Request
    answer: Callable[[], Answer]


@attrs.frozen
class Kind:
    """A way to misbehave.

    Attributes:
        act: Called with a strike. It returns another answer, or ``None`` if there is nothing in the true one for it to spoil.
        path: The requests that it is for, where a fault does not say.
        method: The same.
        selects: Whether it applies the fault's path itself: to the files in a listing, for one.
    """

    act: Callable[[Strike], Answer | None]
    path: str = ""
    method: str | None = None
    selects: bool = False


def _error(strike: Strike) -> Answer:
    """Answer with :attr:`Fault.status` and do nothing."""
    return HubError(strike.fault.status, "Something broke on our side").answer


def _rate_limited(strike: Strike) -> Answer:
    """Answer 429: ask again after :attr:`Fault.seconds`."""
    seconds = max(int(strike.fault.seconds), 0)
    return HubError(429, "Too many requests", Retry_After=str(seconds), RateLimit=f'"api";r=0;t={seconds}').answer


def _slow(strike: Strike) -> Answer:
    """Answer, but :attr:`Fault.seconds` later."""
    strike.hub.stopping.wait(strike.fault.seconds)
    return strike.answer()


def _hang_up(strike: Strike) -> Answer:
    """Close the connection and do nothing."""
    raise HangUp


def _lost_answer(strike: Strike) -> Answer:
    """Do what is asked, and close the connection instead of saying so."""
    strike.answer()
    raise HangUp


def _lost_upload(strike: Strike) -> Answer | None:
    """Confirm what came in, and lose it."""
    with strike.hub.lock:
        before = set(strike.hub.blobs)
        made = strike.answer()
        brought = set(strike.hub.blobs) - before
        for sha256 in brought:
            strike.hub.blobs.lose(sha256)
    return made if brought else None


def _stale_parent(strike: Strike) -> Answer:
    """Let somebody else commit just before."""
    repo = "/".join(strike.request.path.split("/")[3:5])
    strike.hub.put(
        repo, {"somebody-else.txt": f"commit {strike.fault.struck}\n".encode()}, title="Somebody else's commit"
    )
    return strike.answer()


def _cut(strike: Strike) -> Answer | None:
    """Close the connection in the middle of the body."""
    made = strike.answer()
    if strike.request.method == "HEAD" or not made.ok or len(made.data) < 2:
        return None
    return attrs.evolve(made, cut=len(made.data) // 2)


def _endless(strike: Strike) -> Answer | None:
    """Send on and on, without saying how much there will be."""
    made = strike.answer()
    if strike.request.method == "HEAD" or not made.ok:
        return None

    def pieces() -> Iterator[bytes]:
        sent = 0
        while sent < _ENDLESS and not strike.hub.stopping.is_set():
            yield bytes(1 << 16)
            sent += 1 << 16

    return attrs.evolve(made, body=pieces())


def _trickle(strike: Strike) -> Answer | None:
    """Send the body in a hundred pieces, over :attr:`Fault.seconds`."""
    made = strike.answer()
    if not made.data:
        return None

    def pieces() -> Iterator[bytes]:
        size = len(made.data)
        for index in range(100):
            strike.hub.stopping.wait(strike.fault.seconds / 100)
            yield made.data[size * index // 100 : size * (index + 1) // 100]

    return attrs.evolve(made, body=pieces(), claimed=len(made.data))


def _lying_length(strike: Strike) -> Answer | None:
    """Give a Content-Length that is wrong by :attr:`Fault.by` bytes."""
    made = strike.answer()
    if not made.ok or not made.data:
        return None
    return attrs.evolve(made, claimed=max(len(made.data) + strike.fault.by, 0), cut=len(made.data))


def _lying_etag(strike: Strike) -> Answer | None:
    """Give another hash than the file has, in ETag and X-Linked-Etag."""
    return _with_headers(strike.answer(), ("ETag", "X-Linked-Etag"), _other_id)


def _lying_size(strike: Strike) -> Answer | None:
    """Give an X-Linked-Size that is wrong by :attr:`Fault.by` bytes."""
    return _with_headers(strike.answer(), ("X-Linked-Size",), lambda size: str(int(size) + strike.fault.by))


def _wrong_commit(strike: Strike) -> Answer | None:
    """Name another commit than there is."""
    made = strike.answer()
    value = made.value
    if isinstance(value, dict) and {"commitOid", "sha"} & value.keys():
        wrong = {name: _other_id(value[name]) for name in ("commitOid", "sha") if name in value}
        return attrs.evolve(as_json(value | wrong), headers=made.headers)
    return _with_headers(made, ("X-Repo-Commit",), _other_id)


def _wrong_bytes(strike: Strike) -> Answer | None:
    """Give as many bytes as there are in the file, but others; by the Xet protocol too."""
    made = strike.answer()
    if isinstance(made.value, list):
        return _with_wrong_hashes(strike, made)
    if not re.search(strike.fault.path or "", unquote(strike.request.path)):
        return None
    if "X-Xet-Hash" in made.headers:
        return made.having(X_Xet_Hash=strike.hub.hash_of_other_bytes(made.headers["X-Linked-Etag"].strip('"')))
    if strike.request.method == "HEAD" or not made.ok or not re.search(_FILES, strike.request.path):
        return None
    return attrs.evolve(made, body=other_bytes(made.data))


def _with_wrong_hashes(strike: Strike, made: Answer) -> Answer | None:
    """A listing whose entries that the fault is for have the Xet hashes of other bytes."""
    entries = made.value
    hit = [entry for entry in entries if "xetHash" in entry and re.search(strike.fault.path or "", entry["path"])]
    for entry in hit:
        entry["xetHash"] = strike.hub.hash_of_other_bytes(entry["lfs"]["oid"])
    return attrs.evolve(as_json(entries), headers=made.headers) if hit else None


def _redirected(strike: Strike) -> Answer | None:
    """Send the client to another host, which has as many bytes, but others."""
    made = strike.answer()
    if not made.ok and made.status != 302:
        return None
    size = made.headers.get("X-Linked-Size", str(len(made.data)))
    headers = {"X-Linked-Size": size, "X-Linked-Etag": made.headers.get("ETag", ""), **made.headers}
    for name in ("X-Xet-Hash", "Link"):
        headers.pop(name, None)
    return Answer(
        302,
        {**headers, "Location": f"{strike.hub.elsewhere_url}{quote(unquote(strike.request.path))}?size={size}"},
        b"Found",
    )


def _crowded(strike: Strike) -> Answer | None:
    """List :attr:`Fault.count` files more than there are."""
    made = strike.answer()
    value: Any = made.value
    names = [f"crowd/{index:06d}.json" for index in range(strike.fault.count)]
    if isinstance(value, dict) and "siblings" in value:
        value["siblings"] += [{"rfilename": name} for name in names]
    elif isinstance(value, list):
        value += [{"type": "file", "path": name, "size": 2, "oid": "0" * 40} for name in names]
    else:
        return None
    return attrs.evolve(as_json(value), headers=made.headers)


KINDS = {
    "crowded": Kind(_crowded, "^/api/models/[^/]+/[^/]+(/revision/.*|/tree/.*)?$", "GET"),
    "cut": Kind(_cut, _FILES, "GET"),
    "endless": Kind(_endless, _FILES, "GET"),
    "error": Kind(_error),
    "hang_up": Kind(_hang_up),
    "lost_answer": Kind(_lost_answer, _COMMITS, "POST"),
    "lost_upload": Kind(_lost_upload),
    "lying_etag": Kind(_lying_etag, _FILES),
    "lying_length": Kind(_lying_length, _FILES),
    "lying_size": Kind(_lying_size, _FILES),
    "rate_limited": Kind(_rate_limited),
    "redirected": Kind(_redirected, _FILES),
    "slow": Kind(_slow),
    "stale_parent": Kind(_stale_parent, _COMMITS, "POST"),
    "trickle": Kind(_trickle, _FILES, "GET"),
    "wrong_bytes": Kind(_wrong_bytes, selects=True),
    "wrong_commit": Kind(_wrong_commit, _COMMITS, "POST"),
}


def other_bytes(content: bytes) -> bytes:
    """As many bytes, all of them others."""
    return bytes(byte ^ 1 for byte in content)


def _with_headers(made: Answer, names: tuple[str, ...], change: Callable[[str], str]) -> Answer | None:
    changed = {name: change(made.headers[name]) for name in names if name in made.headers}
    return attrs.evolve(made, headers={**made.headers, **changed}) if changed else None


def _other_id(text: str) -> str:
    return re.sub("[0-9a-f]", lambda digit: f"{15 - int(digit[0], 16):x}", text)
