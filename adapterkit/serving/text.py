"""Generated tokens as text while they come: whole characters only, and nothing of a text that ends the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Typed"]

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
MOST_UNFINISHED = 3
"""A character of UTF-8 has four bytes at most: so many at the end may yet become one."""
MOST_TOGETHER = 64
"""Tokens that are read together at most; a model that says nothing but broken bytes would have each read all before it."""


class Typed:
    """Turns tokens into text piece by piece.

    Args:
        tokenizer: Of transformers.
        stop: Texts that end the answer.
        strip: Whether whitespace around the answer is left out.
        lead: What is left out where the answer begins with it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), *, strip: bool = True, lead: str = "") -> None:
        self._tokenizer, self._stop, self._strip, self._lead = tokenizer, tuple(stop), strip, lead
        self._ids: list[int] = []
        self._start = self._read = self._given = 0
        """Tokens are decoded from ``_start`` on; those before ``_read`` are whole, and so many characters of all are given."""
        self._held = ""
        self._begun = not strip
        self.stopped = False
        """Whether a text that ends the answer has come."""

    def add(self, token: int) -> str:
        """What can be shown now that ``token`` is there; often empty."""
        self._ids.append(token)
        now = self._decode(self._start)
        is_long = len(self._ids) - self._start > MOST_TOGETHER
        unfinished = 0 if is_long else min(MOST_UNFINISHED, len(now) - len(now.rstrip(UNFINISHED)))
        whole = len(now) - unfinished
        new, self._given = now[self._given : whole], max(self._given, whole)
        if is_long or (new and not unfinished):
            # a few tokens are read again with the next: how one reads depends on what stands before it
            self._start, self._read = self._read, len(self._ids)
            self._given = len(self._decode(self._start))
        return self._let_out(new)

    def end(self) -> str:
        """What is left to show once there are no more tokens."""
        text = self._let_out(self._decode(self._start)[self._given :])
        held, self._held = self._held, ""
        return text + ("" if self.stopped else held.rstrip() if self._strip else held)

    def one(self, token: int) -> str:
        """What a token reads as by itself."""
        text: str = self._tokenizer.decode([token])
        return text

    def _let_out(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        if not self._begun:
            text = text.lstrip()
            if len(text) < len(self._lead) and self._lead.startswith(text):
                self._held = text
                return ""
            text = text.removeprefix(self._lead).lstrip()
            self._lead, self._begun = "", bool(text)
        ends = [place for place in (text.find(one) for one in self._stop) if place >= 0]
        if ends:
            self.stopped, self._held = True, ""
            shown = text[: min(ends)]
            return shown.rstrip() if self._strip else shown
        kept = max((_begun_at_end(text, one) for one in self._stop), default=0)
        if self._strip:
            kept = max(kept, len(text) - len(text[: len(text) - kept].rstrip()))
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def _decode(self, start: int) -> str:
        text: str = self._tokenizer.decode(
            self._ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _begun_at_end(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
