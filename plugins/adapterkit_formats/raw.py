"""Raw text: every token is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import Text

from .cells import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_text", "holds_only_text"]


def holds_only_text(row: Mapping[str, Any]) -> bool:
    """Whether ``text`` is all that the row has.

    Beside another column it may as well be a prompt, as in a table of texts and their labels; training on it as raw
    text would leave the labels out without a word. Who means raw text says ``format="text"``.
    """
    return set(row) == {"text"}


def from_text(row: Mapping[str, Any]) -> Text:
    """The text as it is."""
    return Text(text_of(row["text"], "text"))
