"""Who may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import Answer, HubError, Request, as_json

if TYPE_CHECKING:
    from .hub import Hub
    from .repositories import Repository
    from .routes import Access

__all__ = ["USER", "admit", "allowed", "whoami"]

USER = "tester"


def admit(hub: Hub, request: Request, access: Access, repo: str | None) -> Repository | None:
    """The repository of a request, if the one who asks may do what they ask.

    Raises:
        HubError: 401 without a token or with a wrong one, 403 with one that may only read, 404 where there is no repository. As on
            the real Hub, who has no token is told that a private repository does not exist.
    """
    known = request.token in {hub.token, hub.read_token}
    if request.token is not None and not known:
        raise HubError(401, "Invalid credentials in Authorization header")
    if access == "account" and not known:
        raise HubError(401, "Invalid username or password.")
    found = None if repo is None else hub.repositories.get(repo)
    if repo is not None and (found is None or (found.private and not known)):
        raise HubError(404 if known else 401, "Repository not found", "RepoNotFound")
    if access == "write":
        must_write(hub, request)
    if access == "download" and found is not None and found.gated and not known:
        raise HubError(401, f"Access to model {repo} is restricted. You must be authenticated.", "GatedRepo")
    return found


def must_write(hub: Hub, request: Request) -> None:
    """Refuse who has no token that may write.

    Raises:
        HubError: 401 or 403.
    """
    if request.token is None:
        raise HubError(401, "Invalid username or password.")
    if request.token != hub.token:
        raise HubError(403, "Forbidden: this token may only read")


def whoami(hub: Hub, request: Request) -> Answer:
    """Whose the token is."""
    role = "write" if request.token == hub.token else "read"
    token = {"displayName": "test", "role": role}
    return as_json(
        {
            "type": "user",
            "id": "0" * 24,
            "name": USER,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def allowed(hub: Hub, request: Request, repo: Repository) -> Answer:
    """Say yes: who may not has been refused."""
    return as_json({})
