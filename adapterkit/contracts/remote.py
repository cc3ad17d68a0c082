"""Places elsewhere, where adapters are published and fetched: the Hub, buckets, folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Remote", "Repository", "Revision"]


@attrs.frozen(kw_only=True)
class Revision:
    """One published version: what it is never changes.

    Attributes:
        id: What the place calls it for ever, such as a commit's sha.
        parent: The id of the one before it; empty for the first.
        tags: Names that point at it, in order.
        message: What its publisher said.
        published: When, in ISO 8601, as far as the place says; else empty.
    """

    id: str
    parent: str = ""
    tags: tuple[str, ...] = ()
    message: str = ""
    published: str = ""


class Repository(Protocol):
    """One place with the versions of one adapter, or of one model.

    Every method raises :class:`~adapterkit.RemoteError` where the place cannot be reached or refuses, and no error holds a token.
    A revision is named by its id, by a tag, or by what else the place has, such as a branch.
    """

    def revisions(self) -> list[Revision]:
        """Every version that is reached from the newest, which is first; empty where nothing is published yet."""

    def resolve(self, revision: str = "") -> str:
        """The id that a name stands for now; of the newest version without one.

        Raises:
            UnknownNameError: There is no such repository, or no such revision in it.
        """

    def sizes(self, revision: str, names: Sequence[str]) -> Mapping[str, int]:
        """How many bytes each of those files has that are there; no other file is looked at."""

    def fetch(self, revision: str, names: Sequence[str], folder: Path) -> None:
        """Write those files of a revision, given by its id, into ``folder``, and nothing elsewhere.

        The folder is the caller's own: empty, or with what an earlier call for the same revision had got before it was cut off,
        which need not be fetched again. A file that is not there, or is larger than :meth:`sizes` said, is an error.
        """

    def push(
        self, files: Mapping[str, Path], *, message: str, parent: str, private: bool, replaces: Sequence[str] = ()
    ) -> str:
        """Publish one version, visible as a whole or not at all, and return its id.

        Args:
            files: What it holds: files of this machine by their names there.
            message: What is said of it.
            parent: The id of the version that it follows; empty where none may be there yet.
            private: Whether a repository that has to be made is for its owners alone; one that is there is left as it is.
            replaces: Patterns, as of :mod:`fnmatch`; older files of such names which are not in ``files`` are gone in this version.

        Raises:
            ConflictError: The newest version is not ``parent`` any more.
        """

    def tag(self, name: str, revision: str) -> None:
        """Let a name point at a version; one that points elsewhere already is a :class:`~adapterkit.ConflictError`."""

    def untag(self, name: str) -> None:
        """Take a name away."""

    def delete(self) -> None:
        """Take the repository away, with every version."""


@attrs.frozen(eq=False, kw_only=True)
class Remote:
    """A kind of place, known by the scheme of its URLs.

    Attributes:
        name: The scheme: ``"hf"`` for ``hf://org/name``.
        open: Makes the repository of a URL, which is given whole but for its revision; touches no network.
        summary: One line for listings.
        is_hub: Whether PEFT, vLLM and cards call its repositories by what stands behind ``://``, as the Hub's: ``org/name``.
    """

    name: str
    open: Callable[[str], Repository]
    summary: str = ""
    is_hub: bool = False
