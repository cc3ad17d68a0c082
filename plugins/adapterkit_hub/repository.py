"""A model repository of the Hub as a place for the versions of one adapter: commits, with tags as names."""

from __future__ import annotations

import fnmatch
import re
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, hf_hub_download, hf_hub_url
from huggingface_hub import get_hf_file_metadata as metadata_of
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import tqdm

from adapterkit import ConflictError, PublishError, RemoteError, Revision, UnknownNameError, __version__

from .calling import printable, trying
from .guard import READING, WRITING, endpoint, is_allowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from huggingface_hub.hf_api import CommitInfo

__all__ = ["HubRepository"]

MAIN = "main"
CARD = "README.md"
BAD_REQUEST = 400
FIRST_COMMIT = "initial commit"
COMMIT = re.compile(r"[0-9a-f]{40}")
ETAG = re.compile(r"[0-9A-Za-z_-]{1,128}")
SLOWEST = 10_000
"""Bytes a second: a download that is slower over its whole length is given up."""


class HubRepository:
    """A model repository.

    Args:
        url: ``"hf://org/name"``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = url.removeprefix("hf://").strip("/")
        if self.id.count("/") != 1:
            raise RemoteError(f"{url} is no repository of the Hub: write hf://org/name")
        self._api = HfApi(endpoint=endpoint(), library_name="adapterkit", library_version=__version__)

    # -- reading ------------------------------------------------------------------------------------------------------

    def revisions(self) -> list[Revision]:
        """The commits of the main branch, the newest first; the one that only made the repository is left out."""
        try:
            return trying(self.url, self._revisions, expected=(RepositoryNotFoundError, RevisionNotFoundError), tries=1)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return []

    def _revisions(self) -> list[Revision]:
        commits = self._api.list_repo_commits(self.id)
        tags: dict[str, list[str]] = {}
        for tag in sorted(self._api.list_repo_refs(self.id).tags, key=lambda one: one.name):
            tags.setdefault(tag.target_commit, []).append(printable(tag.name))
        parents = [one.commit_id for one in commits[1:]] + [""]
        return [
            Revision(
                id=_commit(one.commit_id),
                parent=parent,
                tags=tuple(tags.get(one.commit_id, ())),
                message=printable(one.title),
                published=one.created_at.isoformat(),
            )
            for one, parent in zip(commits, parents, strict=True)
            if parent or one.title != FIRST_COMMIT
        ]

    def resolve(self, revision: str = "") -> str:
        """The commit of a tag, a branch or a commit."""
        wanted = revision or MAIN
        ask = partial(self._api.model_info, self.id, revision=wanted, expand=["sha"])
        try:
            return _commit(trying(self.url, ask, expected=(RepositoryNotFoundError, RevisionNotFoundError)).sha)
        except RevisionNotFoundError:
            raise UnknownNameError(f"revision of {self.url}", wanted, self._tags()) from None
        except RepositoryNotFoundError:
            reason = f"there is none at {endpoint()}, or you may not see it: is HF_TOKEN set?"
            raise UnknownNameError("repository", self.url, (), reason=reason) from None

    def sizes(self, revision: str, names: Sequence[str]) -> dict[str, int]:
        """By one request for each file: a listing could be of any length."""
        found = {name: self._size(revision, name) for name in names}
        return {name: size for name, size in found.items() if size is not None}

    def _size(self, revision: str, name: str) -> int | None:
        where = hf_hub_url(self.id, name, revision=revision, endpoint=endpoint())
        ask = partial(metadata_of, where, token=self._api.token, endpoint=endpoint())
        try:
            found = trying(self.url, ask, expected=(EntryNotFoundError,))
        except EntryNotFoundError:
            return None
        if found.commit_hash != revision or found.size is None or not ETAG.fullmatch(found.etag or ""):
            raise RemoteError(f"{self.url} does not say what {name} is at {revision}")
        if not is_allowed(found.location):
            raise RemoteError(f"{self.url} sends to another host for {name}, {printable(found.location)[:100]!r}")
        return found.size

    def fetch(self, revision: str, names: Sequence[str], folder: Path) -> None:
        """Download, each file to its place in ``folder`` and no further than the size that was named for it."""
        sizes = self.sizes(revision, names)
        missing = sorted(set(names) - set(sizes))
        if missing:
            raise RemoteError(f"{self.url} has no {missing[0]} at {revision}")
        for name in names:
            path, size = folder / name, sizes[name]
            if path.exists() and path.stat().st_size != size:
                path.unlink()  # of an earlier call, to which other sizes were named
            limited = type("Limited", (_Limited,), {"most": size})
            guard = attrs.evolve(READING, most=max(size, READING.most), seconds=READING.seconds + size / SLOWEST)
            trying(self.url, partial(self._download, revision, name, folder, limited), guard=guard)
            if path.stat().st_size != size:
                raise RemoteError(f"{self.url} named {size:,} bytes for {name}, and gave {path.stat().st_size:,}")
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # what the client notes to resume

    def _download(self, revision: str, name: str, folder: Path, bar: type[tqdm]) -> None:
        hf_hub_download(
            self.id,
            name,
            revision=revision,
            local_dir=folder,
            endpoint=endpoint(),
            token=self._api.token,
            tqdm_class=bar,
            library_name="adapterkit",
            library_version=__version__,
        )

    # -- writing ------------------------------------------------------------------------------------------------------

    def push(
        self, files: Mapping[str, Path], *, message: str, parent: str, private: bool, replaces: Sequence[str] = ()
    ) -> str:
        """One commit on the main branch; large files are sent before, and only those that are not there yet."""
        self._check_card(files.get(CARD))
        if not parent:
            parent = self._create(private=private)
        gone = self._gone(parent, files, replaces)
        added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
        commit = partial(self._commit, [*added, *gone], message, parent)
        return _commit(trying(self.url, commit, guard=WRITING).oid)

    def _create(self, *, private: bool) -> str:
        """A new repository; what the commit is called that made it."""
        try:
            trying(self.url, partial(self._api.create_repo, self.id, private=private), guard=WRITING)
        except ConflictError:
            self.resolve()  # where this token may not read it, that is what is to be said
            raise ConflictError(
                f"{self.url} was made by somebody else meanwhile; publish again to go on from there"
            ) from None
        return self.resolve()

    def _check_card(self, card: Path | None) -> None:
        """Let the server look at a card before anything is made for it."""
        if card is None:
            return
        asked = {"repoType": "model", "content": card.read_text(encoding="utf-8")}
        where = f"{endpoint()}/api/validate-yaml"
        headers = self._api._build_hf_headers()  # noqa: SLF001 - the client has no call for it that takes an address
        answer = trying(self.url, lambda: get_session().post(where, json=asked, headers=headers))
        if answer.status_code == BAD_REQUEST:
            said = [printable(one.get("message", "")) for one in answer.json().get("errors", [])]
            raise PublishError(f"{self.url} refuses the card", said or ["it does not say why"])

    def _commit(self, operations: list[Any], message: str, parent: str) -> CommitInfo:
        return self._api.create_commit(
            self.id, operations, commit_message=message, parent_commit=parent, revision=MAIN, num_threads=2
        )

    def _gone(self, parent: str, files: Mapping[str, Path], replaces: Sequence[str]) -> list[CommitOperationDelete]:
        if not replaces:
            return []
        there = trying(self.url, partial(self._api.list_repo_files, self.id, revision=parent), tries=1)
        old = [name for name in there if name not in files and any(fnmatch.fnmatch(name, one) for one in replaces)]
        return [CommitOperationDelete(name) for name in sorted(old)]

    def tag(self, name: str, revision: str) -> None:
        """A tag of git; one that is there must be this one."""
        try:
            trying(self.url, partial(self._api.create_tag, self.id, tag=name, revision=revision), guard=WRITING)
        except ConflictError:
            there = self.resolve(name)
            if there != revision:
                raise ConflictError(f"{self.url}@{name} is {there} already; a version keeps its name") from None

    def untag(self, name: str) -> None:
        """Take the tag away; the commit stays."""
        if name not in self._tags():
            raise UnknownNameError(f"tag of {self.url}", name, self._tags())
        trying(self.url, partial(self._api.delete_tag, self.id, tag=name), guard=WRITING)

    def _tags(self) -> list[str]:
        refs = trying(self.url, partial(self._api.list_repo_refs, self.id))
        return sorted(printable(tag.name) for tag in refs.tags)

    def delete(self) -> None:
        """Delete the repository."""
        gone = partial(self._api.delete_repo, self.id)
        try:
            trying(self.url, gone, guard=WRITING, expected=(RepositoryNotFoundError,), tries=1)
        except RepositoryNotFoundError:
            raise UnknownNameError("repository", self.url, (), reason="there is none that you may delete") from None


def _commit(sha: object) -> str:
    """A commit's id, which will stand in addresses and paths.

    Raises:
        RemoteError: It is none.
    """
    if not isinstance(sha, str) or not COMMIT.fullmatch(sha):
        raise RemoteError(f"the server names a commit that is none: {printable(sha)[:100]!r}")
    return sha


class _Limited(tqdm):
    """A progress bar that stops a download which goes on beyond what was named, also where nothing is shown."""

    most = 0
    got = 0

    def update(self, n: float | None = 1) -> bool | None:
        self.got += int(n or 0)
        if self.got > self.most:
            raise RemoteError(f"more than the {self.most:,} bytes that were named arrive")
        shown: bool | None = super().update(n)
        return shown
