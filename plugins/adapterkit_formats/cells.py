"""What all formats ask of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["optional_text", "system_turn", "text_of"]


def text_of(value: Any, what: str) -> str:
    """``value`` exactly as it is, when it is text with something in it."""
    if value is None:
        raise ValueError(f"{what} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, not {type(value).__name__}")  # noqa: TRY004 - formats raise ValueError
    if not value.strip():
        raise ValueError(f"{what} is empty")
    return value


def optional_text(row: Mapping[str, Any], field: str) -> str:
    """The text of ``field``; empty when the row has none."""
    value = row.get(field)
    absent = value is None or (isinstance(value, str) and not value.strip())
    return "" if absent else text_of(value, field)


def system_turn(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turn of the optional column ``system``; none when it is empty."""
    text = optional_text(row, "system")
    return (Message("system", text),) if text else ()
