"""Sends files as one new version, and reads them back; sending the same again changes nothing."""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.layout import BAKED, CARD, MANIFEST, PEFT_CONFIG
from adapterkit.checkpoint import CONFIG
from adapterkit.errors import ConflictError, RemoteError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit.contracts import Repository

__all__ = ["Sent", "say", "send"]

logger = logging.getLogger("adapterkit")


@attrs.frozen
class Sent:
    """What became of it: the version's id, and whether it was not there before."""

    revision: str
    is_new: bool


def send(
    repository: Repository,
    url: str,
    files: Mapping[str, Path],
    *,
    message: str,
    tag: str = "",
    private: bool = True,
    replaces: Sequence[str] = (),
) -> Sent:
    """Publish files as one version, after which their every byte has been read back.

    Whoever was cut off in the midst of it calls it again: what is there already is found, and only what is missing is done.

    Args:
        repository: Where to.
        url: What the place is called in messages.
        files: Files of this machine by their names there.
        message: What is said of the version.
        tag: A name for it; one that stands for other files already is refused before anything is sent.
        private: Whether a new repository is for its owners alone.
        replaces: See :meth:`adapterkit.Repository.push`.

    Raises:
        ConflictError: The tag is taken, or somebody else published meanwhile; nothing of theirs is lost.
        RemoteError: The place cannot be reached, or gave back other bytes; says whether something was published.
    """
    head = _newest(repository)
    if head:
        _check_kind(repository, url, head, files)
    tagged = _tagged(repository, url, tag, files) if tag and head else ""
    if tagged:
        return Sent(tagged, is_new=False)
    if head and not _differing(repository, head, files):
        sent = Sent(head, is_new=False)
    else:
        sent = Sent(_push(repository, url, files, head, message, private=private, replaces=replaces), is_new=True)
    if tag:
        repository.tag(tag, sent.revision)
    if sent.is_new:
        _check_parent(repository, url, sent.revision, head)
    return sent


def _check_kind(repository: Repository, url: str, head: str, files: Mapping[str, Path]) -> None:
    """Refuse to put an adapter into a model's repository, or a model into an adapter's or a stranger's.

    Raises:
        ConflictError: It holds something else.
    """
    there = set(repository.sizes(head, (MANIFEST, PEFT_CONFIG, BAKED, CONFIG)))
    mine = {MANIFEST, PEFT_CONFIG} if MANIFEST in files else {BAKED}
    if there and not there & mine:
        raise ConflictError(f"{url} holds something else, as its {min(there)} says: publish to a repository of its own")


def _newest(repository: Repository) -> str:
    """The id of the newest version; empty where there is none."""
    try:
        return repository.resolve()
    except UnknownNameError:
        return ""


def _tagged(repository: Repository, url: str, tag: str, files: Mapping[str, Path]) -> str:
    """The id of the version that has a tag, which must hold just these files; empty where the tag is free.

    Raises:
        ConflictError: It stands for others: what a version is must not change. The card is for people, and may be another.
    """
    try:
        tagged = repository.resolve(tag)
    except UnknownNameError:
        return ""
    other = _differing(repository, tagged, {name: path for name, path in files.items() if name != CARD})
    if other:
        raise ConflictError(
            f"{url}@{tag} is another version already ({tagged[:12]}): its {other} differs; give this one another tag. "
            "Nothing was published"
        )
    return tagged


def _push(
    repository: Repository,
    url: str,
    files: Mapping[str, Path],
    head: str,
    message: str,
    *,
    private: bool,
    replaces: Sequence[str],
) -> str:
    say(f"sending {sum(path.stat().st_size for path in files.values()):,} bytes to {url}")
    try:
        made = repository.push(files, message=message, parent=head, private=private, replaces=replaces)
    except (ConflictError, RemoteError):
        made = _newest(repository)  # perhaps it was carried out, and only the answer was lost
        if not made or made == head or _differing(repository, made, files):
            raise
    say(f"reading back {url}@{made[:12]}")
    try:
        damaged = _differing(repository, made, files)
    except RemoteError as error:
        raise RemoteError(
            f"{url}@{made[:12]} was published, but cannot be read back: {error}. Publish again: what is there is found"
        ) from error
    if damaged:
        raise RemoteError(
            f"{url}@{made[:12]} was published, but gives back another {damaged} than was sent: it is damaged there, and will be "
            "refused when it is pulled. No tag points at it; publish again"
        )
    return made


def _check_parent(repository: Repository, url: str, made: str, head: str) -> None:
    """Not every server holds to the parent that it is told: what came in between is in the history, and is said."""
    try:
        parents = {one.id: one.parent for one in repository.revisions()}
    except RemoteError as error:  # it is published, read back and tagged: this is not worth an error
        logger.warning("whether somebody else published to %s meanwhile could not be seen: %s", url, error)
        return
    if head and parents.get(made, head) != head:
        logger.warning(
            "somebody else published to %s meanwhile (%.12s); both versions are there, yours on top", url, parents[made]
        )


def _differing(repository: Repository, revision: str, files: Mapping[str, Path]) -> str:
    """The first file that a revision does not hold byte for byte; empty where it holds them all."""
    names = sorted(files, key=lambda name: files[name].stat().st_size)
    sizes = repository.sizes(revision, names)
    for name in names:
        if sizes.get(name) != files[name].stat().st_size:
            return name
    for name in names:  # one by one: a model need not be on this disk twice
        with tempfile.TemporaryDirectory(prefix="adapterkit-") as folder:
            repository.fetch(revision, [name], Path(folder))
            if _sha256(Path(folder) / name) != _sha256(files[name]):
                return name
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def say(what: str) -> None:
    """Say on a terminal what may take long."""
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True, highlight=False).print(what, style="dim", markup=False)
