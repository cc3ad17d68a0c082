"""How files come in: which way each is to take, and large file storage (https://github.com/git-lfs/git-lfs, docs/api)."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import TYPE_CHECKING, Any

from .messages import Answer, HubError, Request, as_json

if TYPE_CHECKING:
    from .hub import Hub
    from .repositories import Repository

__all__ = ["MOST_REGULAR", "batch", "is_large", "preupload", "store", "verify", "xet_answer", "xet_token"]

MOST_REGULAR = 10 << 20
_LARGE = (
    ".bin",
    ".ckpt",
    ".gguf",
    ".gz",
    ".h5",
    ".npz",
    ".onnx",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".safetensors",
    ".tar",
    ".zip",
)


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether a file belongs into large file storage, by its first bytes."""
    return path.endswith(_LARGE) or size > MOST_REGULAR or b"\0" in sample


def preupload(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """Say which way each file is to take, and what lies at its path now."""
    commit = repo.resolve(revision)
    answers: list[dict[str, Any]] = []
    for asked in request.json()["files"]:
        path = asked["path"]
        large = is_large(path, asked["size"], base64.b64decode(asked["sample"]))
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        there = commit.files.get(path)
        if there and there.lfs == large:
            answer["oid"] = there.sha256 if large else there.oid
        answers.append(answer)
    return as_json({"commitOid": commit.sha, "files": answers})


def batch(hub: Hub, request: Request, repo: Repository) -> Answer:
    """Say where to upload each object; one that is there needs no upload."""
    answers = []
    for asked in request.json()["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
        if hub.blobs.get(asked["oid"]) is None:
            path = f"/{repo.name}/{asked['oid']}"
            verify_url = f"{hub.url}/{repo.name}.git/info/lfs/objects/verify"
            upload = {"href": hub.signed("PUT", path), "header": {}}
            answer["actions"] = {"upload": upload, "verify": {"href": verify_url, "header": {}}}
        answers.append(answer)
    return as_json({"transfer": "basic", "objects": answers})


def store(hub: Hub, request: Request, repo: str, sha256: str) -> Answer:
    """Take an object in."""
    hub.check_signature(request)
    if hashlib.sha256(request.body).hexdigest() != sha256:
        raise HubError(400, "The content does not have the sha256 that was announced")
    hub.blobs.keep(request.body)
    return Answer(headers={"ETag": f'"{sha256}"'})


def verify(hub: Hub, request: Request, repo: Repository) -> Answer:
    """Say whether an object has come in."""
    given = request.json()
    if given["oid"] not in hub.blobs:
        raise HubError(404, f"The object {given['oid']} was not uploaded")
    return as_json({})


def xet_token(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """Say where to write to by the Xet protocol."""
    return xet_answer(hub.needs_cas().place_to_write(), lasting=3600)


def xet_answer(place: str, *, lasting: int) -> Answer:
    """Where to find Xet storage, for some seconds; the token in it means nothing."""
    expires = int(time.time()) + lasting
    token = {"accessToken": "xet", "exp": expires, "casUrl": place}
    made = as_json(token).having(X_Xet_Cas_Url=place, X_Xet_Access_Token="xet")  # noqa: S106 - it opens nothing
    return made.having(X_Xet_Token_Expiration=str(expires))
