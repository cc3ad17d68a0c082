"""The store: versions of adapters under names, aliases that point at them, and a journal of every change."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.errors import AdapterkitError, ArtifactError, StoreError

from . import adding, aliases, checkout, collecting, journal, verifying, versions
from .aliases import UNSET
from .blobs import Blobs
from .index import Index
from .leases import leasing
from .names import check_name, check_text, parse
from .pieces import StoredFiles

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from adapterkit.adapter import Adapter
    from adapterkit.registry import Registry

    from .aliases import Expected
    from .leases import Lease
    from .values import Checked, Collected, Entry, Version

__all__ = ["Store"]

TRIES = 20
"""How often an adapter is staged anew because a collection without any grace took a blob of it: never twice, in practice."""


class Store:
    """Adapters by their content, in a folder that is made when something is first written.

    Usable from threads, forked and spawned processes at once, on one machine. What a method changes is on the disk when it
    returns; one that raises has changed nothing.

    Args:
        folder: Where it is; else ``$ADAPTERKIT_STORE``, else ``~/.adapterkit/store``.
        registry: Where methods are looked up; the process's own without it.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, registry: Registry | None = None) -> None:
        given = folder or os.environ.get("ADAPTERKIT_STORE") or Path.home() / ".adapterkit" / "store"
        self.folder = Path(given).expanduser().absolute()
        self._registry = registry
        self._index = Index(self.folder / "index.sqlite")
        self._blobs = Blobs(self.folder / "blobs" / "sha256", self.folder / "staging")

    @property
    def registry(self) -> Registry:
        """Where methods are looked up."""
        from adapterkit.registry import default_registry

        return self._registry or default_registry()

    # -- versions

    def add(
        self,
        adapter: Adapter | str | os.PathLike[str],
        name: str,
        *,
        why: str = "",
        who: str | None = None,
        origin: str = "",
    ) -> Version:
        """Keep an adapter as the next version of a name.

        One that is the newest version already is that version: nothing is written. What was stored before, under whatever name,
        is not stored again.

        Args:
            adapter: An adapter, or a folder with one, which goes through the trusted loader; what PEFT wrote gets a manifest.
            name: What to call it: small letters, digits, dots, dashes and underscores.
            why: One line for the journal.
            who: Who adds it; ``user@host`` without it.
            origin: Where it was pulled from, as a URL with its revision.

        Raises:
            ArtifactError: The folder is refused.
            ConfigError: The name or a text does not fit.
            StoreError: The store cannot be written.
        """
        check_name(name)
        check_text(origin=origin)
        author = journal.author(who, why)
        for _ in range(TRIES):
            with self._blobs.staging() as folder:
                incoming = adding.stage(adapter, folder, self._blobs, self.registry, origin)
                self._blobs.settle(folder, incoming.pieces)
                try:
                    with self._index.writing() as db:
                        same = adding.same_as(db, incoming, name, newest=True)
                        return same or adding.register(
                            db, incoming, self._blobs, name=name, who=author, why=why, origin=origin
                        )
                except adding.BlobGoneError:
                    continue
        raise StoreError(f"{name!r} could not be added to {self}: its blobs were collected {TRIES} times meanwhile")

    def names(self) -> list[str]:
        """What there are versions of, in order."""
        with self._index.reading() as db:
            rows = db.execute("SELECT DISTINCT name FROM versions WHERE state = 'present' ORDER BY name")
            return [name for (name,) in rows]

    def versions(self, name: str | None = None) -> list[Version]:
        """The versions that are present, by name and number: all, or those of one name.

        Raises:
            UnknownNameError: There never was a version of that name.
        """
        with self._index.reading() as db:
            if name is None:
                return versions.read_versions(db, "state = 'present'")
            newest = versions.find(db, check_name(name))
            return versions.read_versions(db, "name = ? AND state = 'present'", (newest.name,))

    def resolve(self, reference: str | Version) -> Version:
        """The version that a reference means now.

        Args:
            reference: ``cards`` (the newest), ``cards@3``, ``cards@production``, ``cards@sha256:1f0c36a2`` or ``sha256:1f0c36a2``.

        Raises:
            ConfigError: It is not written as a reference is.
            SelectionError: The beginning of a digest fits several adapters.
            UnknownNameError: There is no such name, alias or version; or its files are gone, and since when and by whom.
        """
        with self._index.reading() as db:
            return versions.find(db, reference)

    def load(self, reference: str | Version) -> Adapter:
        """The adapter that a reference means, through the trusted loader: every byte is checked on its way.

        Raises:
            ArtifactError: Its files are damaged; :meth:`verify` names what is. Or the trust policy does not let it in.
            UnknownNameError: As :meth:`resolve` does.
        """
        from adapterkit.adapter import Adapter
        from adapterkit.trust import read_trusted

        version = self.resolve(reference)
        try:
            adapter = Adapter(*read_trusted(self.files(version), self.registry, origin=version.origin))
        except ArtifactError:
            self.resolve(version)  # it may have been collected meanwhile
            raise
        if adapter.digest != version.digest:
            raise StoreError(
                f"{version} of {self} is not the adapter that was stored: look with `adapterkit store verify`"
            )
        return adapter

    def files(self, version: str | Version) -> StoredFiles:
        """The files of a version: their digests, sizes and pieces, and each to be read as one stream.

        Raises:
            UnknownNameError: As :meth:`resolve` does.
        """
        with self._index.reading() as db:
            found = versions.find(db, version)
            return StoredFiles(f"version {found} of {self}", versions.read_files(db, found), self._blobs)

    def checkout(self, reference: str | Version, folder: str | os.PathLike[str]) -> Path:
        """Write a version as an adapter folder, which PEFT reads too.

        Args:
            reference: Which one.
            folder: Where to; an adapter's folder that is there is replaced, once the new one is complete.

        Returns:
            The folder's true path.

        Raises:
            ArtifactError: The files are damaged, or the folder holds something else.
            UnknownNameError: As :meth:`resolve` does.
        """
        return checkout.write(self.files(reference), folder, self.folder)

    def __contains__(self, reference: object) -> bool:
        """Whether a reference means a version that is present."""
        try:
            self.resolve(reference)  # type: ignore[arg-type]
        except (AdapterkitError, AttributeError, TypeError):
            return False
        return True

    # -- aliases

    def aliases(self, name: str | None = None) -> dict[str, Version]:
        """Where every alias points, such as ``cards@production``; or those of one name."""
        condition, values = ("WHERE name = ?", (check_name(name),)) if name is not None else ("", ())
        with self._index.reading() as db:
            rows = db.execute(f"SELECT name, alias, number FROM aliases {condition} ORDER BY name, alias", values)  # noqa: S608
            found = [(f"{one}@{alias}", versions.read_version(db, one, number)) for one, alias, number in rows]
        return {alias: version for alias, version in found if version}

    def promote(
        self,
        reference: str | Version,
        alias: str,
        *,
        expect: Expected = UNSET,
        why: str = "",
        who: str | None = None,
    ) -> Version:
        """Let an alias point at a version; ``store.promote("cards@3", "production")`` sets ``cards@production``.

        Args:
            reference: The version.
            alias: The alias, without the name.
            expect: Where the caller takes it to point now: a version, its number or a reference; None for an alias that is not
                there yet. Without it, the alias moves from wherever it points.
            why: One line for the journal.
            who: Who moves it; ``user@host`` without it.

        Returns:
            The version that the alias points at.

        Raises:
            ConflictError: It points elsewhere than was expected: somebody was faster. Nothing was changed.
            SelectionError: It is protected, and ``expect`` or ``why`` was not given.
            UnknownNameError: As :meth:`resolve` does.
        """
        author = journal.author(who, why)
        with self._index.writing() as db:
            return aliases.promote(db, reference, alias, expect, why, author)

    def rollback(self, alias: str, *, expect: Expected = UNSET, why: str = "", who: str | None = None) -> Version:
        """Let an alias point where it pointed before it was last promoted.

        A second rollback goes one step further back: versions that were rolled back are out of the alias's past.

        Args:
            alias: Which one, as ``cards@production``.
            expect: As of :meth:`promote`.
            why: One line for the journal.
            who: Who rolls back; ``user@host`` without it.

        Returns:
            The version that it points at now.

        Raises:
            ConflictError: It points elsewhere than was expected.
            SelectionError: It has pointed at nothing before, or at what is gone; or it is protected.
            UnknownNameError: There is no such alias.
        """
        author = journal.author(who, why)
        with self._index.writing() as db:
            return aliases.rollback(db, alias, expect, why, author)

    def protect(self, alias: str, *, why: str = "", who: str | None = None) -> None:
        """Have an alias, given as ``cards@production``, move only for who says where it points and why; it is not deleted.

        Raises:
            UnknownNameError: There is no such alias.
        """
        author = journal.author(who, why)
        with self._index.writing() as db:
            aliases.protect(db, alias, why, author, protected=True)

    def unprotect(self, alias: str, *, why: str = "", who: str | None = None) -> None:
        """Have a protected alias move as any other.

        Raises:
            UnknownNameError: There is no such alias.
        """
        author = journal.author(who, why)
        with self._index.writing() as db:
            aliases.protect(db, alias, why, author, protected=False)

    def unalias(self, alias: str, *, why: str = "", who: str | None = None) -> None:
        """Take an alias away, given as ``cards@production``.

        Raises:
            SelectionError: It is protected.
            UnknownNameError: There is no such alias.
        """
        author = journal.author(who, why)
        with self._index.writing() as db:
            aliases.delete(db, alias, why, author)

    # -- the journal

    def history(self, reference: str | None = None) -> list[Entry]:
        """The journal, oldest first: all of it, or what concerns a name, an alias or a version.

        Raises:
            ConfigError: The reference is not written as one is.
        """
        if reference is None:
            with self._index.reading() as db:
                return journal.entries(db)
        wanted = parse(reference)
        with self._index.reading() as db:
            if wanted.digest:
                version = versions.find(db, reference)
                return journal.entries(db, version.name, number=version.number)
            return journal.entries(db, wanted.name, wanted.alias, wanted.number)

    def live(self, at: dt.datetime | str | None = None) -> dict[str, Version]:
        """Where every alias points, or pointed at a moment: versions by ``cards@production``.

        Args:
            at: A moment, with its zone; as a text in ISO 8601. Now, without it.

        Raises:
            ConfigError: It is no moment.
        """
        with self._index.reading() as db:
            moves = journal.latest_moves(db, journal.moment(at) if at else "")
            found = [
                (f"{one}@{alias}", versions.read_version(db, one, number)) for (one, alias), number in moves.items()
            ]
        return {alias: version for alias, version in sorted(found) if version}

    # -- what is kept, and whether it is sound

    def remove(self, reference: str | Version, *, why: str = "", who: str | None = None) -> Version:
        """Take a version away: it is not found any more, and its files go with the next collection; its number stays taken.

        Raises:
            SelectionError: An alias points at it, or somebody has leased it.
            UnknownNameError: As :meth:`resolve` does.
        """
        author = journal.author(who, why)
        with self._index.writing() as db:
            return collecting.remove(db, reference, why, author)

    def lease(
        self, reference: str | Version, *, seconds: float = 600, holder: str = ""
    ) -> AbstractContextManager[Lease]:
        """Keep a version for a block: it is neither collected nor removed while ``with store.lease("cards@3"):`` runs.

        Args:
            reference: Which one.
            seconds: When the lease ends by itself, as its holder may die; ``lease.renew()`` has the time begin anew.
            holder: Who needs it; ``user@host`` without it.

        Raises:
            ConfigError: The time does not fit.
            UnknownNameError: As :meth:`resolve` does.
        """
        return leasing(self._index, reference, seconds, journal.author(holder))

    def collect(
        self,
        grace: dt.timedelta = dt.timedelta(days=7),
        *,
        keep: int = collecting.KEEP,
        dry_run: bool = False,
        who: str | None = None,
    ) -> Collected:
        """Delete what nothing needs. It never runs by itself.

        A version stays while an alias points at it, while it is one of the last that an alias can be rolled back to, as the newest
        of its name, and while it is leased. Every other goes whose last use (that it was added, that an alias moved off it, that a
        lease ended) is longer ago than the grace; then the blobs that no version needs and nobody wrote or asked for within the
        grace, and what dead writers have left.

        Args:
            grace: How long something is kept after its last use.
            keep: How many versions before the present one are kept for each alias.
            dry_run: Whether only to say what would be deleted.
            who: Who collects; ``user@host`` without it.
        """
        author = journal.author(who)
        return collecting.collect(self._index, self._blobs, grace=grace, keep=keep, dry_run=dry_run, who=author)

    def check(self) -> Checked:
        """Read everything, and say what is damaged: files, index and journal. Others may go on meanwhile."""
        return verifying.check(self._index, self._blobs)

    def verify(self) -> Checked:
        """The same, as an error where something is damaged.

        Raises:
            StoreError: It names every damage.
        """
        checked = self.check()
        if checked.problems:
            damage = "".join(f"\n  - {problem}" for problem in checked.problems)
            raise StoreError(f"{self} is damaged:{damage}")
        return checked

    def __str__(self) -> str:
        return f"store {str(self.folder)!r}"

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """A store goes to another process as its folder; methods are looked up in that process's registry."""
        return Store, (str(self.folder),)
