"""Commits: one request carries them out whole or not at all."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from .messages import Answer, HubError, Request, as_json
from .repositories import File, checked_path
from .uploading import MOST_REGULAR

if TYPE_CHECKING:
    from .hub import Hub
    from .repositories import Commit, Repository

__all__ = ["commit"]


def commit(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """Make a commit of a header and operations, one in a line."""
    if request.flag("create_pr"):
        raise HubError(400, "The test Hub has no pull requests")
    if revision not in repo.branches:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    header, operations = _read(request)
    parent = repo.resolve(revision)
    pinned = header.get("parentCommit")
    if pinned and hub.enforce_parent and not parent.sha.startswith(pinned):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(parent.files)
    for key, value in operations:
        _OPERATIONS[key](hub, files, value)
    made = repo.commit(files, header.get("summary", ""), header.get("description", ""), branch=revision)
    return as_json(_report(hub, repo, made))


def _read(request: Request) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    try:
        lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
        items = [(line["key"], line["value"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(400, f"the body is no list of operations: {error!r}") from None
    headers = [value for key, value in items if key == "header"]
    operations = [(key, value) for key, value in items if key != "header"]
    unknown = sorted({key for key, _ in operations} - set(_OPERATIONS))
    if len(headers) != 1 or unknown:
        raise HubError(400, f"a commit has one header, not {len(headers)}, and the operations {', '.join(_OPERATIONS)}")
    return headers[0], operations


def _add(hub: Hub, files: dict[str, File], value: dict[str, Any]) -> None:
    path = _checked(value["path"])
    try:
        content = base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise HubError(400, f"the content of {path} is no base64: {error}") from None
    if len(content) > MOST_REGULAR:
        raise HubError(400, f"{path} is larger than 10 MiB: it belongs into large file storage")
    hub.blobs.keep(content)
    files[path] = File.regular(content)


def _add_large(hub: Hub, files: dict[str, File], value: dict[str, Any]) -> None:
    path, sha256 = _checked(value["path"]), value["oid"]
    if hub.blobs.get(sha256) is None and hub.cas and (written := hub.cas.written(sha256)) is not None:
        hub.blobs.keep(written)
    if sha256 not in hub.blobs:
        raise HubError(400, f"Your push was rejected: {path} points to {sha256}, which was not uploaded")
    content = hub.blobs.get(sha256)
    size = value.get("size", len(content or b""))
    if content is not None and size != len(content):
        raise HubError(400, f"Your push was rejected: {path} has {len(content)} bytes, not {size}")
    files[path] = File.large(sha256, size)


def _delete(hub: Hub, files: dict[str, File], value: dict[str, Any]) -> None:
    if files.pop(value["path"], None) is None:
        raise HubError(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")


def _delete_folder(hub: Hub, files: dict[str, File], value: dict[str, Any]) -> None:
    folder = value["path"].rstrip("/") + "/"
    inside = [path for path in files if path.startswith(folder)]
    if not inside:
        raise HubError(404, f"A folder with this name doesn't exist: {value['path']}", "EntryNotFound")
    for path in inside:
        del files[path]


_OPERATIONS = {"file": _add, "lfsFile": _add_large, "deletedFile": _delete, "deletedFolder": _delete_folder}


def _checked(path: str) -> str:
    try:
        return checked_path(path)
    except ValueError as error:
        raise HubError(400, str(error)) from None


def _report(hub: Hub, repo: Repository, made: Commit) -> dict[str, Any]:
    url = f"{hub.url}/{repo.name}/commit/{made.sha}"
    return {"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""}
