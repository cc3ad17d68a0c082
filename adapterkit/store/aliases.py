"""Moves aliases: each move is one transaction and one row of the journal."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from adapterkit.errors import ConfigError, ConflictError, SelectionError

from . import journal
from .names import Reference, check_alias, parse
from .values import PRESENT, Version
from .versions import alias_target, find, read_version

if TYPE_CHECKING:
    import sqlite3

__all__ = ["UNSET", "Expected", "Unset", "adopt", "delete", "promote", "protect", "rollback", "split"]


class Unset(enum.Enum):
    """Says that nothing was said, where None says something."""

    UNSET = "whatever it is"


UNSET: Final = Unset.UNSET
Expected = Version | str | int | None | Unset
FITTING = "say which version it is: a number, cards@2, a digest, or None for an alias that is not there yet"


def split(text: str) -> tuple[str, str]:
    """The name and the alias of ``cards@production``.

    Raises:
        ConfigError: It names no alias.
    """
    wanted = parse(text)
    if not wanted.alias:
        raise ConfigError(f"{text!r:.200} names no alias", ["give one as cards@production"])
    return wanted.name, wanted.alias


def promote(
    db: sqlite3.Connection, reference: str | Version, alias: str, expect: Expected, why: str, who: str
) -> Version:
    """Let an alias point at a version, in the caller's transaction; see :meth:`Store.promote`."""
    version = find(db, reference)
    check_alias(alias)
    current = _current(db, version.name, alias)
    _check_expected(db, version.name, alias, current, expect)
    if current == version.number:
        return version
    _check_protection(db, version.name, alias, expect, why)
    db.execute(
        "INSERT INTO aliases (name, alias, number) VALUES (?, ?, ?)"
        " ON CONFLICT (name, alias) DO UPDATE SET number = excluded.number",
        (version.name, alias, version.number),
    )
    journal.append(
        db,
        action="promote",
        name=version.name,
        alias=alias,
        before=current,
        after=version.number,
        why=why,
        who=who,
    )
    return version


def rollback(db: sqlite3.Connection, text: str, expect: Expected, why: str, who: str) -> Version:
    """Let an alias point where it pointed before, in the caller's transaction; see :meth:`Store.rollback`."""
    name, alias = split(text)
    current = alias_target(db, name, alias)
    _check_expected(db, name, alias, current, expect)
    _check_protection(db, name, alias, expect, why)
    trail = journal.past(db, name, alias)
    if len(trail) < 2:
        raise SelectionError(f"{text} cannot be rolled back: {name}@{current} is the first version that it points at")
    version = read_version(db, name, trail[-2])
    if version is None or version.state != PRESENT:
        gone = f"{version.state} at {version.ended} by {version.ended_by}" if version else "lost"
        raise SelectionError(f"{text} cannot be rolled back: {name}@{trail[-2]} was {gone}; promote another version")
    db.execute("UPDATE aliases SET number = ? WHERE name = ? AND alias = ?", (version.number, name, alias))
    journal.append(
        db, action="rollback", name=name, alias=alias, before=current, after=version.number, why=why, who=who
    )
    return version


def protect(db: sqlite3.Connection, text: str, why: str, who: str, *, protected: bool) -> None:
    """Protect an alias, or no longer; nothing happens where it is so already."""
    name, alias = split(text)
    number = alias_target(db, name, alias)
    if _is_protected(db, name, alias) == protected:
        return
    db.execute("UPDATE aliases SET protected = ? WHERE name = ? AND alias = ?", (protected, name, alias))
    action = "protect" if protected else "unprotect"
    journal.append(db, action=action, name=name, alias=alias, before=number, after=number, why=why, who=who)


def delete(db: sqlite3.Connection, text: str, why: str, who: str) -> None:
    """Take an alias away, unless it is protected."""
    name, alias = split(text)
    number = alias_target(db, name, alias)
    if _is_protected(db, name, alias):
        raise SelectionError(f"{text} is protected: it is not deleted; unprotect it first")
    db.execute("DELETE FROM aliases WHERE name = ? AND alias = ?", (name, alias))
    journal.append(db, action="unalias", name=name, alias=alias, before=number, why=why, who=who)


def adopt(
    db: sqlite3.Connection, version: Version, alias: str, *, move: bool, protected: bool, why: str, who: str
) -> bool | None:
    """Set an alias as an export has it.

    Returns:
        Whether it was set; None where it pointed there already. One that points elsewhere is only moved on demand, and never where
        it is protected.
    """
    current = _current(db, version.name, alias)
    if current == version.number:
        return None
    if current and (not move or _is_protected(db, version.name, alias)):
        return False
    promote(db, version, alias, current, why, who)
    if protected:
        protect(db, f"{version.name}@{alias}", why, who, protected=True)
    return True


def _current(db: sqlite3.Connection, name: str, alias: str) -> int | None:
    row = db.execute("SELECT number FROM aliases WHERE name = ? AND alias = ?", (name, alias)).fetchone()
    return row[0] if row else None


def _is_protected(db: sqlite3.Connection, name: str, alias: str) -> bool:
    row = db.execute("SELECT protected FROM aliases WHERE name = ? AND alias = ?", (name, alias)).fetchone()
    return bool(row and row[0])


def _check_expected(db: sqlite3.Connection, name: str, alias: str, current: int | None, expect: Expected) -> None:
    if isinstance(expect, Unset):
        return
    wanted = _number(db, name, current, expect)
    if wanted != current:
        there = f"points at {name}@{current}" if current else "is not there yet"
        hoped = f"{name}@{wanted}" if wanted else "nothing"
        raise ConflictError(f"{name}@{alias} {there}, not at {hoped}: nothing was changed; look again, then decide")


def _number(db: sqlite3.Connection, name: str, current: int | None, expect: Version | str | int | None) -> int | None:
    """The number of the version that is meant; what it names may be gone.

    Raises:
        ConfigError: It is a version of another name, or no version by itself: an alias is always where it points.
    """
    if expect is None or (isinstance(expect, int) and not isinstance(expect, bool)):
        return expect
    if not isinstance(expect, (str, Version)):
        raise ConfigError(f"expect={expect!r:.100} does not fit", [FITTING])
    wanted = parse(expect) if isinstance(expect, str) else Reference(expect.name, expect.number)
    if wanted.name not in ("", name):
        raise ConfigError("expect does not fit", [f"{expect} is no version of {name!r}"])
    if wanted.digest:
        found = find(db, f"{name}@sha256:{wanted.digest}")
        here = read_version(db, name, current) if current else None
        return current if here and here.digest == found.digest else found.number  # several versions may be one adapter
    if not wanted.number:
        raise ConfigError(f"expect={expect!r:.200} does not fit", [f"it means whatever is there; {FITTING}"])
    return wanted.number


def _check_protection(db: sqlite3.Connection, name: str, alias: str, expect: Expected, why: str) -> None:
    if _is_protected(db, name, alias) and (isinstance(expect, Unset) or not why):
        raise SelectionError(
            f"{name}@{alias} is protected: it moves only for who says where it points now (expect=…) and why (why=…)"
        )
