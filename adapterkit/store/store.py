"""The store: versions of adapters under names, aliases that point at them, and a journal of every change."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.errors import ArtifactError, ConfigError, SelectionError, StoreError, UnknownNameError

from . import adding, checkout, collecting, exporting, importing, journal, verifying, versions
from .blobs import Blobs
from .downloading import downloading
from .index import Index
from .leases import leasing
from .names import check_name, check_origin
from .pieces import StoredFiles
from .pointing import Pointing
from .values import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from adapterkit.adapter import Adapter
    from adapterkit.registry import Registry

    from .leases import Lease
    from .values import Checked, Collected, Imported

__all__ = ["Store"]

TRIES = 20
"""How often an adapter is staged anew because a collection without any grace took a blob of it: never twice, in practice."""


class Store(Pointing):
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
        self._blobs = Blobs(self.folder / "blobs" / "sha256", self.folder / "staging", self.folder / "downloads")

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
        is not stored again; one that comes from another place is a version of its own, as trust depends on the place.

        Args:
            adapter: An adapter, or a folder with one, which goes through the trusted loader; what PEFT wrote gets a manifest.
            name: What to call it: small letters, digits, dots, dashes and underscores.
            why: One line for the journal.
            who: Who adds it; ``user@host`` without it.
            origin: Where it was pulled from, as a URL with its revision. Without it, a folder that a trust policy lets in comes
                from its own path: the rule holds for what is in the store too.

        Raises:
            ArtifactError: The folder is refused.
            ConfigError: The name or a text does not fit.
            StoreError: The store cannot be written.
        """
        check_name(name)
        check_origin(origin)
        author = journal.author(who, why)
        for _ in range(TRIES):
            with self._blobs.staging() as folder:
                incoming = adding.stage(adapter, folder, self._blobs, self.registry, origin)
                self._blobs.settle(folder, incoming.pieces)
                try:
                    with self._index.writing(make=True) as db:
                        newest = adding.newest(db, name)
                        place = incoming.origin
                        if newest in adding.alike(db, incoming, name) and (not place or newest.origin == place):
                            return newest
                        return adding.register(db, incoming, self._blobs, name=name, who=author, why=why)
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
            ArtifactError: The files are damaged, the trust policy does not let them in, or the folder holds something else.
            UnknownNameError: As :meth:`resolve` does.
        """
        from adapterkit.trust import check_trusted

        version = self.resolve(reference)
        files = self.files(version)
        try:
            # or its rule could be walked around, by a folder that another one lets in
            check_trusted(files, origin=version.origin)
            return checkout.write(files, folder, self.folder)
        except ArtifactError:
            self.resolve(version)  # it may have been collected meanwhile
            raise

    def downloading(self, what: str) -> AbstractContextManager[Path]:
        """A folder for what is fetched before it is added, for a block: ``with store.downloading(url) as folder:``.

        Whoever was cut off, by a :class:`RemoteError`, Ctrl-C or a kill, finds what had arrived when they ask for the same again;
        it goes when the block ends otherwise, or with a collection after its grace. Nobody else is given the folder meanwhile,
        and no collection takes it: who asks for the same at once gets an empty one.

        Args:
            what: What is fetched, such as an address with its commit.

        Raises:
            StoreError: The store cannot be written, or a link lies where the folder belongs.
        """
        return downloading(self._blobs.downloads, what)

    def __contains__(self, reference: object) -> bool:
        """Whether a reference means a version that is present."""
        if not isinstance(reference, (str, Version)):
            return False
        try:
            self.resolve(reference)
        except (ConfigError, SelectionError, UnknownNameError):
            return False
        return True

    def export(self, path: str | os.PathLike[str], references: Iterable[str | Version] | None = None) -> list[Version]:
        """Write versions as plain adapter folders, ``<name>/<number>``, which PEFT reads too, with a list in ``store.json``.

        Args:
            path: A new folder, or a file whose name ends in ``.tar``.
            references: Which versions; all that are present, without it. The aliases that point at them go along, and the journal
                of their names.

        Returns:
            What was written.

        Raises:
            ArtifactError: A version is damaged or not let in by the trust policy, or the disk is full; nothing is left there.
            ConfigError: Something is there already.
            UnknownNameError: As :meth:`resolve` does.
        """
        return exporting.export(self._index, self._blobs, self.folder, path, references)

    def import_(
        self,
        path: str | os.PathLike[str],
        *,
        move_aliases: bool = False,
        max_bytes: int = importing.MOST_BYTES,
        why: str = "",
        who: str | None = None,
    ) -> Imported:
        """Take in what a store has exported: all of it, each adapter through the trusted loader, or nothing.

        A version keeps its number where that was never given here, and gets the next one where it was, or where it is more than
        10,000 above the last one here. One that is here already is not added again. Where it was pulled from there is what the
        exporter says, and not taken over: its origin here is the path.

        Args:
            path: The folder or the tar, which may be compressed with gzip.
            move_aliases: Whether aliases move that point elsewhere here; protected ones never do.
            max_bytes: More is refused.
            why: One line for the journal; without it, what was said when each version was added.
            who: Who imports; ``user@host`` without it.

        Raises:
            ArtifactError: It is refused, by the trust policy too; nothing of it is kept, and nothing was written elsewhere.
            StoreError: The store cannot be written.
        """
        author = journal.author(who, why)
        for _ in range(TRIES):
            try:
                return importing.import_(
                    self._index,
                    self._blobs,
                    path,
                    self.registry,
                    move_aliases=move_aliases,
                    max_bytes=max_bytes,
                    why=why,
                    who=author,
                )
            except adding.BlobGoneError:
                continue
        raise StoreError(f"{os.fspath(path)!r} could not be imported: its blobs were collected {TRIES} times meanwhile")

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

    def check(self, tell: Callable[[int, int], None] | None = None) -> Checked:
        """Read everything, and say what is damaged: files, index and journal. Others may go on meanwhile.

        Args:
            tell: Is told how many bytes of how many are read, file by file.
        """
        return verifying.check(self._index, self._blobs, tell)

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
