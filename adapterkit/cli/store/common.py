"""What the commands of the store have in common; none of it needs torch, as most of them do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

__all__ = [
    "AliasRef",
    "AsJson",
    "Expect",
    "Ref",
    "StoreFolder",
    "Who",
    "Why",
    "counted",
    "print_json",
    "size",
    "when",
]

StoreFolder = Annotated[
    Path | None,
    Parameter(name="--store", help="The store's folder, else $ADAPTERKIT_STORE, else ~/.adapterkit/store."),
]
Ref = Annotated[str, Parameter(help="The version: cards, cards@3, cards@production, sha256:1f0c36a2.")]
AliasRef = Annotated[str, Parameter(help="The alias, with its name: cards@production.")]
Expect = Annotated[
    str | None,
    Parameter(help="Where it must point now, or nothing is changed: a number, a digest, or none where it is new."),
]
Why = Annotated[str, Parameter(help="One line for the journal.", show_default=False)]
Who = Annotated[str | None, Parameter(help="Who does it, for the journal; user@host without it.")]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")]


def print_json(values: Any) -> None:
    """Values of attrs classes as JSON."""
    print(json.dumps(values, indent=2, ensure_ascii=False, default=attrs.asdict))


def size(count: float) -> str:
    """So many bytes, for people."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def counted(count: int, what: str) -> str:
    """``"1 blob"``, ``"2 blobs"``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def when(at: str) -> str:
    """A moment in UTC, to the second."""
    return at[:19].replace("T", " ")
