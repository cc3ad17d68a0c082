"""Repositories as the test Hub keeps them: in memory, with all of their history."""

from __future__ import annotations

import hashlib
import re
import time
from functools import cached_property
from typing import TYPE_CHECKING

import attrs

from .git import blob_id, commit_id, pointer, tree_ids
from .messages import HubError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Blobs", "Commit", "File", "Repository", "checked_path"]

_REF_NAME = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$))[^\x00-\x20~^:?*\[\\\x7f./-][^\x00-\x20~^:?*\[\\\x7f]*(?<![./])")


def checked_path(path: str) -> str:
    """A path, if the Hub takes it in a commit.

    Raises:
        ValueError: It leads elsewhere, or git does not take it.
    """
    if "\0" in path or any(part in {"", ".", "..", ".git"} for part in path.split("/")):
        raise ValueError(f"Invalid path in a commit: {path!r}")
    return path


class Blobs:
    """Contents by sha256. One that was lost is still known, as where a bucket lost what it had confirmed."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes | None] = {}

    def keep(self, content: bytes) -> str:
        """Keep a content, and give its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._kept[sha256] = content
        return sha256

    def lose(self, sha256: str) -> None:
        """Forget a content, but not that it was there."""
        self._kept[sha256] = None

    def get(self, sha256: str) -> bytes | None:
        """A content; ``None`` if it is not there."""
        return self._kept.get(sha256)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._kept))


@attrs.frozen
class File:
    """A file of one commit.

    Attributes:
        sha256: Of its content.
        size: In bytes.
        oid: Its id in git: of the content, or of the pointer to it.
        lfs: Whether it lies in large file storage.
    """

    sha256: str
    size: int
    oid: str
    lfs: bool

    @classmethod
    def regular(cls, content: bytes) -> File:
        """A file that git itself keeps."""
        return cls(hashlib.sha256(content).hexdigest(), len(content), blob_id(content), lfs=False)

    @classmethod
    def large(cls, sha256: str, size: int) -> File:
        """A file in large file storage."""
        return cls(sha256, size, blob_id(pointer(sha256, size)), lfs=True)


@attrs.frozen
class Commit:
    """One state of a repository.

    Attributes:
        sha: Its id.
        parent: The id of the state before.
        files: By path.
        folders: The ids of all folders by path.
        title: The first line of its message.
        description: The rest.
        seconds: When it was made, since 1970.
    """

    sha: str
    parent: str | None
    files: Mapping[str, File] = attrs.field(repr=False)
    folders: Mapping[str, str] = attrs.field(repr=False)
    title: str
    description: str
    seconds: int

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The paths of all files and folders, sorted."""
        return tuple(sorted({*self.files, *self.folders} - {""}))


class Repository:
    """A repository; :meth:`Hub.repository` gives it to tests.

    Attributes:
        name: ``"organisation/name"``.
        private: Whether nobody reads it without a token.
        gated: ``False``, ``"auto"`` or ``"manual"``: whether its files are read with a token only.
        branches: Commit ids by name.
        tags: The same.
        seconds: When it was made, since 1970.
    """

    def __init__(self, name: str, blobs: Blobs, *, private: bool = False) -> None:
        self.name, self.private, self.gated = name, private, False
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.seconds = int(time.time())
        self._blobs = blobs
        self._commits: dict[str, Commit] = {}

    def __repr__(self) -> str:
        return f"Repository({self.name!r})"

    def commit(self, files: Mapping[str, File], title: str, description: str = "", *, branch: str = "main") -> Commit:
        """Make these files the newest state of a branch; it starts one that is not there.

        Args:
            files: All of them, by path.
            title: The first line of the message.
            description: The rest.
            branch: The name of a branch.
        """
        parent = self.branches.get(branch)
        folders = tree_ids({path: file.oid for path, file in files.items()})
        seconds = int(time.time())
        message = f"{title}\n\n{description}" if description else title
        sha = commit_id(folders[""], parent, message, seconds)
        self._commits[sha] = Commit(sha, parent, dict(files), folders, title, description, seconds)
        self.branches[branch] = sha
        return self._commits[sha]

    def resolve(self, revision: str = "main") -> Commit:
        """The commit that a branch, a tag or a commit id stands for.

        Raises:
            HubError: 404, ``RevisionNotFound``.
        """
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self._commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self._commits[sha]

    def commits(self, revision: str = "main") -> list[Commit]:
        """A revision and all before it, the newest first."""
        found = [self.resolve(revision)]
        while (parent := found[-1].parent) is not None:
            found.append(self._commits[parent])
        return found

    def files(self, revision: str = "main") -> dict[str, bytes | None]:
        """The content of each file by path; ``None`` for one that the Hub has lost."""
        return {path: self.read(file) for path, file in sorted(self.resolve(revision).files.items())}

    def read(self, file: File) -> bytes | None:
        """The content of a file; ``None`` if the Hub has lost it."""
        return self._blobs.get(file.sha256)

    def add_ref(self, kind: str, name: str, revision: str) -> None:
        """Add a branch or a tag.

        Args:
            kind: ``"branch"`` or ``"tag"``.
            name: A name that git takes.
            revision: What it stands for.

        Raises:
            HubError: 409, it is there; 400, git takes no such name; 404, there is no such revision.
        """
        refs = self._refs(kind)
        if not _REF_NAME.fullmatch(name):
            raise HubError(400, f"Invalid {kind} name: {name!r}")
        if name in refs:
            raise HubError(409, f"{kind.capitalize()} {name} exists already")
        refs[name] = self.resolve(revision).sha

    def remove_ref(self, kind: str, name: str) -> None:
        """Remove a branch or a tag; commits stay.

        Raises:
            HubError: 404, there is none; 403, it is the branch main.
        """
        if (kind, name) == ("branch", "main"):
            raise HubError(403, "The branch main cannot be deleted")
        if self._refs(kind).pop(name, None) is None:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")

    def _refs(self, kind: str) -> dict[str, str]:
        return self.branches if kind == "branch" else self.tags
