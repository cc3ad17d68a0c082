"""What should not be learned by heart: personal data and secrets, found in every part of a row and shown of none."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from adapterkit.credentials import Secrets

from .findings import Finding, Shown, several
from .needs import MissingLibraryError, not_checked
from .personal import GRAVE, PersonalData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from adapterkit.credentials import Match

    from .findings import Severity
    from .items import Item
    from .options import AuditOptions

    Finder = Callable[[str], Iterable[Match]]

__all__ = ["Guard", "Sightings", "make_guard", "personal_data", "secrets"]

MOST_HINTS = 10
_LONG_NUMBER = re.compile(r"\d(?:[ .-]?\d){6,}")
"""Not enough to be called a find, but an example is as good without it: a phone number that is written into a word, say."""


@attrs.frozen
class Guard:
    """What finds private things; None where its library is not installed."""

    personal: Finder | None
    secret: Finder

    @property
    def black_out(self) -> Callable[[str], str] | None:
        """Puts the kind of everything that is private in its place; None where not all of it could be found."""
        personal, secret = self.personal, self.secret
        return None if personal is None else lambda text: _black_out(text, (secret, personal))


def make_guard(options: AuditOptions) -> tuple[Guard, list[Finding]]:
    """A guard, and what is to be said of libraries that are not there."""
    secret = Secrets().find
    try:
        return Guard(PersonalData(options.phone_regions).find, secret), []
    except MissingLibraryError as error:
        return Guard(None, secret), [not_checked("personal data", error)]


@attrs.define
class Sightings:
    """What was found so far, without the values.

    Attributes:
        finder: What looks.
        most: So many examples are kept.
        rows: How many rows had something.
        counts: How often each kind was found.
        examples: The first rows, with the first letter and the length of each value.
    """

    finder: Finder
    most: int
    rows: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)
    examples: list[Shown] = attrs.field(factory=list)

    def look(self, item: Item) -> None:
        """Look through one row."""
        text = item.text
        found = list(self.finder(text))
        if not found:
            return
        self.rows += 1
        self.counts.update(match.kind for match in found)
        if len(self.examples) < self.most:
            hints = [f"{match.kind} {text[match.start]}… ({match.end - match.start} characters)" for match in found]
            more = f"; and {len(hints) - MOST_HINTS} more" * (len(hints) > MOST_HINTS)
            self.examples.append(Shown((item.where,), "", "; ".join(hints[:MOST_HINTS]) + more))


def personal_data(seen: Sightings, rows: int, regions: Sequence[str]) -> list[Finding]:
    """Rows with what seems to be personal data."""
    scope = f"those of {', '.join(regions)}" if regions else "left out"
    return _finding(
        "personal-data",
        "serious" if seen.counts.keys() & GRAVE else "warning",
        seen,
        rows,
        "what seems to be personal data, which can come out again in answers: take it out, or put made-up values in its place. "
        f"Names and addresses are not found by this; phone numbers without a country code are {scope}.",
    )


def secrets(seen: Sightings, rows: int) -> list[Finding]:
    """Rows with what seems to be a key or a token."""
    return _finding(
        "secrets",
        "serious",
        seen,
        rows,
        "what seems to be a key or a token: take it out, and have it revoked, as it lies in a file that many can read.",
    )


def _finding(name: str, severity: Severity, seen: Sightings, rows: int, text: str) -> list[Finding]:
    if not seen.rows:
        return []
    return [
        Finding(
            name=name,
            severity=severity,
            count=seen.rows,
            share=seen.rows / rows,
            explanation=f"{several(seen.rows, 'row')} with {text}",
            counts=dict(seen.counts.most_common()),
            examples=tuple(seen.examples),
        )
    ]


def _black_out(text: str, finders: Iterable[Finder]) -> str:
    for finder in finders:
        for match in sorted(finder(text), key=lambda match: -match.start):
            text = f"{text[: match.start]}[{match.kind}]{text[match.end :]}"
    return _LONG_NUMBER.sub("[number]", text)
