"""Texts of strangers as people can safely read them: what cannot be seen is shown, what is long is cut."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs

__all__ = ["Folded", "fold", "seen"]

INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and newline
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # marks, bidi overrides, spaces of no width
    "\ud800-\udfff\ufffe\uffff"  # halves of a pair, which no UTF-8 file can hold, and what is no character
    "\U000e0000-\U000e007f"  # tags: letters that nobody sees and a model reads
    "]"
)
OPENING = 400
"""Characters of a long text that are shown at once."""
MOST = 4_000
"""Characters that are shown at all: a page with many texts must still open on a phone."""
MOST_LINES = 12


@attrs.frozen
class Folded:
    """A text for the page.

    Attributes:
        opening: What is shown at once.
        rest: What is shown when it is unfolded: the text, up to :data:`MOST` characters; empty for a short one.
        length: Characters of the whole text.
        missing: Characters that are not on the page.
    """

    opening: str
    rest: str = ""
    length: int = 0
    missing: int = 0


def seen(value: Any) -> str:
    """A text in which control characters, marks that turn the direction and letters that nobody sees are written out."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return INVISIBLE.sub(_written, text.replace("\r\n", "\n"))


def fold(value: Any) -> Folded:
    """A text, or a conversation's turns, cut to what a reader wants to see first."""
    text = _said(value)
    shown = seen(text[:MOST])
    opening = "\n".join(shown[:OPENING].split("\n")[:MOST_LINES])
    if opening == shown and len(text) <= MOST:
        return Folded(shown, length=len(text))
    return Folded(opening, shown, len(text), max(0, len(text) - MOST))


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) and "role" in turn for turn in value):
        return "\n\n".join(f"{turn['role']}: {_said(turn.get('content', ''))}" for turn in value)
    return json.dumps(value, ensure_ascii=False, indent=1)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode has a picture of each
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
