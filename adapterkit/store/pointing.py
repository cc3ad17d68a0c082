"""What a store does with aliases, and what its journal says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import aliases, journal, versions
from .aliases import UNSET
from .names import check_name, parse

if TYPE_CHECKING:
    import datetime as dt

    from .aliases import Expected
    from .index import Index
    from .values import Entry, Version

__all__ = ["Pointing"]


class Pointing:
    """The part of :class:`Store` that moves aliases and reads the journal."""

    _index: Index

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
            expect: Where the caller takes it to point now: a version, its number, ``cards@2`` or a digest; None for an alias that
                is not there yet. Without it, the alias moves from wherever it points.
            why: One line for the journal.
            who: Who moves it; ``user@host`` without it.

        Returns:
            The version that the alias points at.

        Raises:
            ConfigError: ``expect`` names no version, but another name's, or what itself moves, as an alias does.
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
