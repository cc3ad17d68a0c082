"""Examples as a report may show them: short, and with what is private blacked out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from .findings import Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .items import Item

__all__ = ["Quoting", "shorten"]

LONGEST = 160
MOST_PLACES = 8
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?", re.DOTALL)
_SPACE = re.compile(r"\s+")


@attrs.frozen
class Quoting:
    """How examples are shown.

    Attributes:
        most: So many of them.
        black_out: Takes what is private out of a text; None where nobody can tell what that is, and then no text is shown.
    """

    most: int
    black_out: Callable[[str], str] | None

    def text(self, text: str) -> str:
        """The beginning of a text, on one line."""
        return shorten(self.black_out(text)) if self.black_out else ""

    def reason(self, text: str) -> str:
        """Why a row is refused; without what it quotes of the row where nobody can tell whether that is private."""
        return self.text(text) or shorten(_QUOTED.sub("'…'", text))

    def rows(self, rows: Sequence[Item], note: str = "") -> Shown:
        """Rows that belong together, by the prompt of the first, or its text where it has none."""
        places = [row.where for row in rows[:MOST_PLACES]]
        more = len(rows) - len(places)
        return Shown(
            (*places, *([f"and {more} more"] if more > 0 else [])),
            self.text(rows[0].prompt or rows[0].completion),
            self.text(note),
        )

    def each(self, rows: Iterable[Item], notes: Callable[[Item], str] = lambda _: "") -> tuple[Shown, ...]:
        """The first of many rows, each by itself."""
        chosen = [row for row, _ in zip(rows, range(self.most), strict=False)]
        return tuple(self.rows([row], notes(row)) for row in chosen)


def shorten(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, with every white space as one space."""
    flat = _SPACE.sub(" ", text[: 4 * longest]).strip()
    return flat if len(flat) <= longest else flat[: longest - 1].rstrip() + "…"
