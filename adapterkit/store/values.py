"""What the store knows, as values."""

from __future__ import annotations

import attrs

__all__ = [
    "COLLECTED",
    "PRESENT",
    "REMOVED",
    "Checked",
    "Collected",
    "Entry",
    "Imported",
    "Piece",
    "StoredFile",
    "Version",
]

PRESENT, REMOVED, COLLECTED = "present", "removed", "collected"


@attrs.frozen(kw_only=True)
class Version:
    """One adapter under a name; what it is never changes, and its number is never given again. ``str`` is ``cards@3``.

    Attributes:
        name: What it is called.
        number: Counted from 1 under each name.
        digest: The adapter's identity.
        manifest: The sha256 of its ``adapterkit.json``, which fixes every other file but the card and the signature.
        bytes: The size of its files together.
        created: When it was added, in UTC, as ISO 8601.
        who: Who added it.
        why: What they said of it.
        origin: Where it was pulled or imported from; empty for one that was made here.
        state: ``"present"``; ``"removed"`` by somebody or ``"collected"``, and its files are gone or will go.
        ended: When it was removed or collected.
        ended_by: Who did it.
    """

    name: str
    number: int
    digest: str
    manifest: str
    bytes: int
    created: str
    who: str
    why: str = ""
    origin: str = ""
    state: str = PRESENT
    ended: str = ""
    ended_by: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


@attrs.frozen
class Piece:
    """A part of a file, which is a blob of its own: ``sha256`` is what the blob is called."""

    sha256: str
    size: int


@attrs.frozen
class StoredFile:
    """A file of a version: its pieces one after the other."""

    name: str
    sha256: str
    size: int
    pieces: tuple[Piece, ...]


@attrs.frozen(kw_only=True)
class Entry:
    """One row of the journal: who changed what, when and why.

    Attributes:
        seq: Its place in the journal, from 1, without a gap.
        at: When, in UTC, as ISO 8601 with microseconds; never earlier than the row before.
        who: ``user@host``, or what the caller said.
        action: ``add``, ``import``, ``promote``, ``rollback``, ``unalias``, ``protect``, ``unprotect``, ``remove`` or ``collect``.
        name: Whose version or alias.
        alias: The alias, where it is about one.
        before: The number of the version that was there before; None where there was none.
        after: The number of the version that is there now; None where there is none.
        why: What they said.
        manifest: Of a version that was added, as it says itself.
        origin: The same.
        chain: The sha256 of the row and of the row before: none can be changed or taken out unnoticed.
    """

    seq: int
    at: str
    who: str
    action: str
    name: str
    alias: str = ""
    before: int | None = None
    after: int | None = None
    why: str = ""
    manifest: str = ""
    origin: str = ""
    chain: str = ""


@attrs.frozen(kw_only=True)
class Collected:
    """What was deleted, or would be in a dry run.

    Attributes:
        versions: The versions whose files nothing needs any more.
        blobs: How many blobs are gone.
        bytes: Their size.
        staging: How many folders of dead writers and of given-up downloads are gone.
    """

    versions: tuple[Version, ...] = ()
    blobs: int = 0
    bytes: int = 0
    staging: int = 0


@attrs.frozen(kw_only=True)
class Checked:
    """What was looked at, and what is damaged.

    Attributes:
        versions: How many versions are present.
        files: How many different files they have.
        blobs: How many blobs these consist of.
        bytes: The size of the blobs.
        entries: How many rows the journal has.
        orphans: How many blobs no version needs: no damage, and gone with the next collection after their grace.
        problems: A line for each damage.
    """

    versions: int
    files: int
    blobs: int
    bytes: int
    entries: int
    orphans: int
    problems: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Imported:
    """What an import brought.

    Attributes:
        added: What is new here, by what it was called there; the number is another one where it was taken here.
        known: What was here already, by what it was called there.
        aliases: The aliases that were set, such as ``cards@production``.
        kept: The aliases that point elsewhere here, and were left.
    """

    added: dict[str, Version]
    known: dict[str, Version]
    aliases: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
