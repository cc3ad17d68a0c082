"""A model repository of the Hub as a place for the versions of one adapter: commits, with tags as names."""

from __future__ import annotations

import fnmatch
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, hf_hub_url
from huggingface_hub import get_hf_file_metadata as metadata_of
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import tqdm

from adapterkit import ConflictError, RemoteError, Revision, UnknownNameError, __version__

from .calling import calling, endpoint, trying

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from huggingface_hub.hf_api import CommitInfo

__all__ = ["HubRepository"]

MAIN = "main"
HUB_HOSTS = ("huggingface.co", "hf.co")
"""Where the public Hub keeps its files: on these and hosts below them."""
MORE_HOSTS = "ADAPTERKIT_HUB_HOSTS"
"""Names hosts, with their ports and commas between, from which another server lets its files be fetched."""
FIRST_COMMIT = "initial commit"


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
            commits = trying(self.url, lambda: self._api.list_repo_commits(self.id))
            refs = trying(self.url, lambda: self._api.list_repo_refs(self.id))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return []
        tags: dict[str, list[str]] = {}
        for tag in sorted(refs.tags, key=lambda one: one.name):
            tags.setdefault(tag.target_commit, []).append(tag.name)
        parents = [one.commit_id for one in commits[1:]] + [""]
        return [
            Revision(
                id=one.commit_id,
                parent=parent,
                tags=tuple(tags.get(one.commit_id, ())),
                message=one.title,
                published=one.created_at.isoformat(),
            )
            for one, parent in zip(commits, parents, strict=True)
            if parent or one.title != FIRST_COMMIT
        ]

    def resolve(self, revision: str = "") -> str:
        """The commit of a tag, a branch or a commit."""
        wanted = revision or MAIN
        try:
            found = trying(self.url, lambda: self._api.model_info(self.id, revision=wanted, expand=["sha"]))
        except RevisionNotFoundError:
            known = [tag for one in self.revisions() for tag in one.tags]
            raise UnknownNameError(f"revision of {self.url}", wanted, known) from None
        except RepositoryNotFoundError:
            reason = f"there is none at {endpoint()}, or you may not see it: is HF_TOKEN set?"
            raise UnknownNameError("repository", self.url, (), reason=reason) from None
        if not found.sha:
            raise RemoteError(f"{self.url} does not say which commit {wanted!r} is")
        return found.sha

    def sizes(self, revision: str, names: Sequence[str]) -> dict[str, int]:
        """By one request for each file: a listing could be of any length."""
        found = {name: self._size(revision, name) for name in names}
        return {name: size for name, size in found.items() if size is not None}

    def _size(self, revision: str, name: str) -> int | None:
        where = hf_hub_url(self.id, name, revision=revision, endpoint=endpoint())
        try:
            found = trying(self.url, lambda: metadata_of(where, token=self._api.token, endpoint=endpoint()))
        except EntryNotFoundError:
            return None
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise RemoteError(f"{self.url} has no revision {revision!r} any more") from None
        if found.commit_hash != revision or found.size is None:
            raise RemoteError(f"{self.url} does not say what {name} is at {revision}")
        self._check_host(name, found.location)
        return found.size

    def _check_host(self, name: str, location: str) -> None:
        """Refuse to be sent elsewhere: files come from the server itself, the public Hub's from its own hosts too."""
        own, host = urlsplit(endpoint()).netloc, urlsplit(location).netloc
        further = [one.strip() for one in os.environ.get(MORE_HOSTS, "").split(",")]
        is_hub = own in HUB_HOSTS and any(host == one or host.endswith(f".{one}") for one in HUB_HOSTS)
        if host not in (own, *further) and not is_hub:
            raise RemoteError(
                f"{self.url} sends to another host for {name}, {host!r:.100}, which is not followed; if the server keeps its files "
                f"there, name it in {MORE_HOSTS}"
            )

    def fetch(self, revision: str, names: Sequence[str], folder: Path) -> None:
        """Download, each file to its place in ``folder`` and no further than the size that was named for it."""
        sizes = self.sizes(revision, names)
        missing = sorted(set(names) - set(sizes))
        if missing:
            raise RemoteError(f"{self.url} has no {missing[0]} at {revision}")
        for name in names:
            path = folder / name
            if path.exists() and path.stat().st_size != sizes[name]:
                path.unlink()  # of an earlier call, to which other sizes were named
            limited = type("Limited", (_Limited,), {"most": sizes[name]})
            trying(self.url, partial(self._download, revision, name, folder, limited))
            if path.stat().st_size != sizes[name]:
                raise RemoteError(
                    f"{self.url} named {sizes[name]:,} bytes for {name}, and gave {path.stat().st_size:,}"
                )
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
        if not parent:
            parent = self._create(private=private)
        gone = self._gone(parent, files, replaces)
        added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
        try:
            made: CommitInfo = trying(self.url, lambda: self._commit([*added, *gone], message, parent))
        except RepositoryNotFoundError:
            raise RemoteError(f"{self.url} is not there, or you may not write there: is HF_TOKEN set?") from None
        return made.oid

    def _create(self, *, private: bool) -> str:
        """A new repository; what the commit is called that made it."""
        try:
            trying(self.url, lambda: self._api.create_repo(self.id, private=private))
        except ConflictError:
            raise ConflictError(
                f"{self.url} was made by somebody else meanwhile; publish again to go on from there"
            ) from None
        return self.resolve()

    def _commit(self, operations: list[Any], message: str, parent: str) -> CommitInfo:
        return self._api.create_commit(
            self.id, operations, commit_message=message, parent_commit=parent, revision=MAIN, num_threads=2
        )

    def _gone(self, parent: str, files: Mapping[str, Path], replaces: Sequence[str]) -> list[CommitOperationDelete]:
        if not replaces:
            return []
        there = trying(self.url, lambda: self._api.list_repo_files(self.id, revision=parent))
        old = [name for name in there if name not in files and any(fnmatch.fnmatch(name, one) for one in replaces)]
        return [CommitOperationDelete(name) for name in sorted(old)]

    def tag(self, name: str, revision: str) -> None:
        """A tag of git; one that is there must be this one."""
        try:
            trying(self.url, lambda: self._api.create_tag(self.id, tag=name, revision=revision))
        except ConflictError:
            there = self.resolve(name)
            if there != revision:
                raise ConflictError(f"{self.url}@{name} is {there} already; a version keeps its name") from None

    def untag(self, name: str) -> None:
        """Take the tag away; the commit stays."""
        try:
            trying(self.url, lambda: self._api.delete_tag(self.id, tag=name))
        except (RevisionNotFoundError, RepositoryNotFoundError, HfHubHTTPError):
            raise UnknownNameError(f"tag of {self.url}", name, self._tags()) from None

    def _tags(self) -> list[str]:
        return [tag for one in self.revisions() for tag in one.tags]

    def delete(self) -> None:
        """Delete the repository."""
        try:
            with calling(self.url):
                self._api.delete_repo(self.id)
        except RepositoryNotFoundError:
            raise UnknownNameError("repository", self.url, (), reason="there is none that you may delete") from None


class _Limited(tqdm):
    """A progress bar that stops a download which goes on beyond what was named."""

    most = 0

    def update(self, n: float | None = 1) -> bool | None:
        done: bool | None = super().update(n)
        if self.n > self.most:
            raise RemoteError(f"more than the {self.most:,} bytes that were named arrive")
        return done
