"""How files go out: from the Hub itself, from its storage by a signed address, or by the Xet protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from .messages import Answer, HubError, Request, content
from .uploading import xet_answer

if TYPE_CHECKING:
    from .hub import Hub
    from .repositories import Commit, File, Repository

__all__ = ["fetch", "resolve", "strange", "xet_token"]


def resolve(hub: Hub, request: Request, repo: Repository, revision: str, path: str) -> Answer:
    """Give a file, or the address of a large one."""
    commit = repo.resolve(revision)
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.sha)
    if file.lfs:
        return _elsewhere(hub, repo, commit, path, file)
    found = _found(repo.read(file))
    return content(request, found, X_Repo_Commit=commit.sha, ETag=f'"{file.oid}"')


def fetch(hub: Hub, request: Request, repo: str, sha256: str, path: str) -> Answer:
    """Give a file out of storage."""
    hub.check_signature(request)
    return content(request, _found(hub.blobs.get(sha256)), ETag=f'"{sha256}"')


def xet_token(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """Say where to read from by the Xet protocol; for so short a time that clients ask anew for each file."""
    return xet_answer(hub.needs_cas().place_to_read(), lasting=60)


def strange(hub: Hub, request: Request, path: str) -> Answer:
    """Give what a host gives that is not the Hub's: as many bytes as were promised, all of them zero."""
    return content(request, bytes(int(request.query.get("size", ["0"])[-1])))


def _elsewhere(hub: Hub, repo: Repository, commit: Commit, path: str, file: File) -> Answer:
    location = hub.signed("GET", f"/{repo.name}/{file.sha256}/{quote(path)}")
    linked = {"X_Linked_Etag": f'"{file.sha256}"', "X_Linked_Size": str(file.size), "X_Repo_Commit": commit.sha}
    made = Answer(302, {"Location": location}, b"Found").having(**linked)
    if (xet_hash := hub.xet_hash(file)) is None:
        return made
    refresh = f"{hub.url}/api/models/{repo.name}/xet-read-token/{commit.sha}"
    return made.having(X_Xet_Hash=xet_hash, Link=f'<{refresh}>; rel="xet-auth"')


def _found(data: bytes | None) -> bytes:
    if data is None:
        raise HubError(404, "The storage has no such object")
    return data
