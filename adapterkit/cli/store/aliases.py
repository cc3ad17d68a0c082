"""``adapterkit store promote | rollback | protect | unprotect | unalias | history | live``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapterkit.cli.flags import as_flags
from adapterkit.cli.tables import print_table
from adapterkit.store import UNSET, Store

from .common import AliasRef, AsJson, Expect, Ref, StoreFolder, Who, Why, print_json

if TYPE_CHECKING:
    from adapterkit.store import Entry
    from adapterkit.store.aliases import Expected

__all__ = ["history", "live", "promote", "protect", "rollback", "unalias", "unprotect"]


def promote(
    version: Ref,
    alias: Annotated[str, Parameter(help="The alias, such as production.")],
    *,
    expect: Expect = None,
    why: Why = "",
    who: Who = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias point at a version."""
    with as_flags("expect", "why"):
        target = Store(store).promote(version, alias, expect=_expected(expect), why=why, who=who)
    print_json(target) if as_json else print(target)


def rollback(
    alias: AliasRef,
    *,
    expect: Expect = None,
    why: Why = "",
    who: Who = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias point where it pointed before; once more goes one step further back."""
    with as_flags("expect", "why"):
        target = Store(store).rollback(alias, expect=_expected(expect), why=why, who=who)
    print_json(target) if as_json else print(target)


def protect(alias: AliasRef, *, why: Why = "", who: Who = None, store: StoreFolder = None) -> None:
    """Have an alias move only for who says where it points now (--expect) and why (--why)."""
    Store(store).protect(alias, why=why, who=who)


def unprotect(alias: AliasRef, *, why: Why = "", who: Who = None, store: StoreFolder = None) -> None:
    """Have a protected alias move as any other."""
    Store(store).unprotect(alias, why=why, who=who)


def unalias(alias: AliasRef, *, why: Why = "", who: Who = None, store: StoreFolder = None) -> None:
    """Take an alias away; the version stays."""
    Store(store).unalias(alias, why=why, who=who)


def history(
    reference: Annotated[str | None, Parameter(help="A name, an alias or a version; everything without it.")] = None,
    *,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show the journal: who changed what, when and why."""
    found = Store(store).history(reference)
    if as_json:
        print_json(found)
        return
    if not found:
        print("the journal says nothing of that", file=sys.stderr)
        return
    rows = [("WHEN", "WHO", "WHAT", "", "WHY")]
    rows += [(one.at, one.who, one.action, _move(one), one.why) for one in found]
    print_table(rows)


def live(
    *,
    at: Annotated[str | None, Parameter(help="When: 2026-05-01T12:00:00Z; now without it.")] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show where every alias points, or pointed at a moment."""
    with as_flags("at"):
        found = Store(store).live(at)
    if as_json:
        print_json(found)
        return
    if not found:
        print(f"no alias pointed anywhere at {at}" if at else "no alias points anywhere", file=sys.stderr)
    for alias, version in found.items():
        gone = "" if version.state == "present" else f"  ({version.state})"
        print(f"{alias}  {version}  {version.digest[:12]}{gone}")


def _expected(text: str | None) -> Expected:
    """What ``--expect`` says: a number is a version's, ``none`` that there is no such alias yet."""
    if text is None:
        return UNSET
    if text == "none":
        return None
    return int(text) if text.isascii() and text.isdigit() else text


def _move(entry: Entry) -> str:
    before, after = (f"{entry.name}@{number}" if number else "" for number in (entry.before, entry.after))
    if not entry.alias:
        return after or before
    alias = f"{entry.name}@{entry.alias}"
    if entry.before == entry.after:
        return alias
    return f"{alias}: {before or 'nothing'} → {after or 'nothing'}"
