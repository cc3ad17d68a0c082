"""Making, changing and deleting repositories, tags and branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .accounts import USER, must_write
from .messages import Answer, HubError, Request, as_json

if TYPE_CHECKING:
    from .hub import Hub
    from .repositories import Repository

__all__ = ["change", "create", "create_branch", "create_tag", "delete", "delete_branch", "delete_tag"]


def create(hub: Hub, request: Request) -> Answer:
    """Make a repository of one commit."""
    must_write(hub, request)
    given = request.json()
    name = _name(given)
    if name in hub.repositories:
        raise HubError(409, "You already created this model repo", details={"url": f"{hub.url}/{name}"})
    hub.create(name, private=_private(given, default=False))
    return as_json({"url": f"{hub.url}/{name}", "name": name, "id": name})


def delete(hub: Hub, request: Request) -> Answer:
    """Delete a repository."""
    must_write(hub, request)
    name = _name(request.json())
    if hub.repositories.pop(name, None) is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    return as_json({})


def change(hub: Hub, request: Request, repo: Repository) -> Answer:
    """Change who sees a repository."""
    given = request.json()
    repo.private = _private(given, default=repo.private)
    repo.gated = given.get("gated", repo.gated)
    return as_json({"private": repo.private, "gated": repo.gated})


def create_tag(hub: Hub, request: Request, repo: Repository, revision: str) -> Answer:
    """Tag a revision."""
    repo.add_ref("tag", str(request.json().get("tag", "")), revision)
    return as_json({})


def delete_tag(hub: Hub, request: Request, repo: Repository, name: str) -> Answer:
    """Delete a tag."""
    repo.remove_ref("tag", name)
    return as_json({})


def create_branch(hub: Hub, request: Request, repo: Repository, name: str) -> Answer:
    """Start a branch."""
    given = request.json() if request.body else {}
    repo.add_ref("branch", name, given.get("startingPoint") or "main")
    return as_json({})


def delete_branch(hub: Hub, request: Request, repo: Repository, name: str) -> Answer:
    """Delete a branch."""
    repo.remove_ref("branch", name)
    return as_json({})


def _name(given: dict[str, Any]) -> str:
    if given.get("type", "model") != "model":
        raise HubError(400, f"The test Hub keeps models only, not a {given['type']}")
    return f"{given.get('organization') or USER}/{given['name']}"


def _private(given: dict[str, Any], *, default: bool) -> bool:
    """Older clients send ``private``, newer ones ``visibility``."""
    if "visibility" in given:
        return bool(given["visibility"] == "private")
    private = given.get("private")
    return default if private is None else bool(private)
