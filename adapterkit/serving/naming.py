"""How adapters are named in a request: ``cards``, ``cards@3+tone``, ``cards*0.7+tone*-0.3``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.compose import named_parts
from adapterkit.errors import SelectionError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MOST_TEXT", "SHOWN", "asked_of", "counted_as", "short"]

MOST_PARTS = 16
"""Names in one request."""
MOST_TEXT = 4096
"""Characters in which so many names and weights are said."""
SHOWN = 60
"""Characters of what was asked for that an error repeats."""


def asked_of(model: str) -> list[tuple[str, float]]:
    """The names and weights in what was asked for; errors are short, however long it is."""
    if len(model) > MOST_TEXT:
        raise UnknownNameError("adapter", f"{model[:SHOWN]}…", [], reason="no adapter has so long a name")
    if not {"+", "*"}.intersection(model):
        return [(model, 1.0)]
    if model.count("+") >= MOST_PARTS:
        raise SelectionError(f"{short(model)} names {model.count('+') + 1} adapters; at most {MOST_PARTS} act at once")
    try:
        return named_parts(model)
    except SelectionError as error:
        if len(model) <= SHOWN:
            raise
        raise SelectionError(f"{short(model)} is not written as name*0.7+other*0.3") from error


def counted_as(names: Iterable[str]) -> str:
    """What the traffic of several adapters together is counted under, in whatever order they were named."""
    return "+".join(sorted(set(names)))


def short(text: str) -> str:
    """So much of a text as an error repeats."""
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"
