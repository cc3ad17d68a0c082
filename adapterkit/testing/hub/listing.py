"""What the Hub says of repositories."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import yaml

from .cards import card_data, tags_of, tensors_of
from .git import pointer
from .messages import Answer, HubError, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .hub import Hub
    from .repositories import Commit, File, Repository

__all__ = ["commits", "info", "models", "paths_info", "refs", "tree", "validate_yaml"]

_PAGE, _EXPANDED_PAGE = 1000, 50


def info(hub: Hub, request: Request, repo: Repository, revision: str = "main") -> Answer:
    """Describe one revision."""
    commit = repo.resolve(revision)
    described = _described(repo, commit)
    described["siblings"] = [
        _sibling(path, file, blobs=request.flag("blobs")) for path, file in sorted(commit.files.items())
    ]
    if tensors := tensors_of(repo, commit):
        described["safetensors"] = tensors
    wanted = {*request.query.get("expand", ()), "_id", "id"}
    return as_json({key: value for key, value in described.items() if len(wanted) == 2 or key in wanted})


def models(hub: Hub, request: Request) -> Answer:
    """List the repositories that the one who asks may see."""
    known = request.token in {hub.token, hub.read_token}
    author, search = (request.query.get(name, [""])[-1] for name in ("author", "search"))
    seen = [repo for name, repo in sorted(hub.repositories.items()) if known or not repo.private]
    seen = [repo for repo in seen if (not author or repo.name.startswith(f"{author}/")) and search in repo.name]
    return _page(hub, request, seen, lambda repo: _described(repo, repo.resolve()), most=_PAGE)


def refs(hub: Hub, request: Request, repo: Repository) -> Answer:
    """List branches and tags."""

    def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in sorted(names.items())
        ]

    found = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags), "converts": []}
    return as_json({**found, "pullRequests": []} if request.flag("include_prs") else found)


def commits(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """List a revision and those before it."""

    def described(commit: Commit) -> dict[str, Any]:
        said = {"id": commit.sha, "title": commit.title, "message": commit.description, "date": _date(commit.seconds)}
        return {**said, "authors": [{"user": "tester"}]}

    return _page(hub, request, repo.commits(revision), described, most=_EXPANDED_PAGE)


def tree(hub: Hub, request: Request, repo: Repository, revision: str, path: str = "") -> Answer:
    """List a folder, and what lies in its folders if ``recursive`` is set."""
    commit = repo.resolve(revision)
    if path not in commit.folders:
        raise HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
    start = f"{path}/" if path else ""
    inside = [one for one in commit.paths if one.startswith(start)]
    if not request.flag("recursive"):
        inside = [one for one in inside if "/" not in one[len(start) :]]
    expand = request.flag("expand")
    most = _EXPANDED_PAGE if expand else _PAGE
    return _page(hub, request, inside, lambda one: _entry(hub, repo, commit, one, expand=expand), most=most)


def paths_info(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """Describe some paths; those that are not there are left out."""
    commit = repo.resolve(revision)
    asked = parse_qs(request.body.decode(), keep_blank_values=True)
    expand = asked.get("expand", ["false"])[-1].lower() == "true"
    there = [path for path in asked.get("paths", []) if path in commit.paths]
    return as_json([_entry(hub, repo, commit, path, expand=expand) for path in there])


def validate_yaml(hub: Hub, request: Request) -> Answer:
    """Look at the metadata of a card."""
    try:
        data = card_data(request.json()["content"])
    except (yaml.YAMLError, ValueError) as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    errors = _card_errors(data)
    warnings = [] if data else [{"message": "empty or missing yaml metadata in repo card"}]
    return as_json({"errors": errors, "warnings": warnings}, 400 if errors else 200)


def _card_errors(data: dict[str, Any]) -> list[dict[str, str]]:
    bases = data.get("base_model", [])
    wrong = [
        one
        for one in (bases if isinstance(bases, list) else [bases])
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(one))
    ]
    errors = [
        f'"base_model" with value "{one}" is not valid. Use a model id from https://hf.co/models.' for one in wrong
    ]
    for name, kind in (
        ("license", str),
        ("library_name", str),
        ("pipeline_tag", str),
        ("tags", list),
        ("model-index", list),
    ):
        if name in data and not isinstance(data[name], kind):
            errors.append(f'"{name}" must be a {"string" if kind is str else "list"}')
    return [{"message": message} for message in errors]


def _described(repo: Repository, commit: Commit) -> dict[str, Any]:
    try:
        data = card_data((_readme(repo, commit) or b"").decode("utf-8", "replace"))
    except (yaml.YAMLError, ValueError):
        data = {}
    described: dict[str, Any] = {
        "_id": "0" * 24,
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.name.split("/")[0],
    }
    described |= {"sha": commit.sha, "lastModified": _date(commit.seconds), "createdAt": _date(repo.seconds)}
    described |= {"private": repo.private, "gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0}
    described |= {"tags": tags_of(data), "usedStorage": sum(file.size for file in commit.files.values())}
    described |= {name: data[name] for name in ("library_name", "pipeline_tag", "model-index") if name in data}
    return described | ({"cardData": data} if data else {})


def _readme(repo: Repository, commit: Commit) -> bytes | None:
    file = commit.files.get("README.md")
    return repo.read(file) if file else None


def _sibling(path: str, file: File, *, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.lfs:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return sibling


def _entry(hub: Hub, repo: Repository, commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": path}
    if (file := commit.files.get(path)) is None:
        entry |= {"type": "directory", "oid": commit.folders[path], "size": 0}
    else:
        entry |= {"type": "file", "oid": file.oid, "size": file.size}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
            if xet_hash := hub.xet_hash(file):
                entry["xetHash"] = xet_hash
    if expand:
        last = _last_change(repo, commit, path)
        entry["lastCommit"] = {"id": last.sha, "title": last.title, "date": _date(last.seconds)}
    return entry


def _last_change(repo: Repository, commit: Commit, path: str) -> Commit:
    history = repo.commits(commit.sha)
    for newer, older in pairwise(history):
        if (newer.files.get(path), newer.folders.get(path)) != (older.files.get(path), older.folders.get(path)):
            return newer
    return history[-1]


def _pointer_size(file: File) -> int:
    return len(pointer(file.sha256, file.size))


def _page(hub: Hub, request: Request, items: Sequence[Any], described: Any, *, most: int) -> Answer:
    """Some of the items, and the address of the next ones."""
    start = int(request.query.get("cursor", ["0"])[-1])
    count = min(int(request.query.get("limit", [str(most)])[-1]), most)
    made = as_json([described(one) for one in items[start : start + count]])
    if start + count >= len(items):
        return made
    query = urlencode({**request.query, "cursor": start + count}, doseq=True)
    return made.having(Link=f'<{hub.url}{request.path}?{query}>; rel="next"')


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
