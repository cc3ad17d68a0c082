"""What should not be learned by heart: personal data and secrets, found in every part of a row and shown of none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from .findings import Finding, Shown
from .personal import GRAVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .findings import Severity
    from .items import Item
    from .personal import Match

    Finder = Callable[[str], Iterable[Match]]

__all__ = ["Sightings", "black_out", "personal_data", "secrets"]


def black_out(text: str, finders: Iterable[Finder]) -> str:
    """``text`` with the kind of everything that is found in its place."""
    for finder in finders:
        for match in sorted(finder(text), key=lambda match: -match.start):
            text = f"{text[: match.start]}[{match.kind}]{text[match.end :]}"
    return text


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
            self.examples.append(Shown((item.where,), "", "; ".join(hints[:10])))


def personal_data(seen: Sightings, rows: int, regions: Sequence[str]) -> list[Finding]:
    """Rows with what seems to be personal data."""
    scope = f"those of {', '.join(regions)}" if regions else "left out"
    return _finding(
        "personal-data",
        "serious" if seen.counts.keys() & GRAVE else "warning",
        seen,
        rows,
        "hold what seems to be personal data, which can come out again in answers: take it out, or put made-up values in its place. "
        f"Names and addresses are not found by this; phone numbers without a country code are {scope}.",
    )


def secrets(seen: Sightings, rows: int) -> list[Finding]:
    """Rows with what seems to be a key or a token."""
    return _finding(
        "secrets",
        "serious",
        seen,
        rows,
        "hold what seems to be a key or a token: take it out, and have it revoked, as it lies in a file that many can read.",
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
            explanation=f"{seen.rows:,} rows {text}",
            counts=dict(seen.counts.most_common()),
            examples=tuple(seen.examples),
        )
    ]
