"""Alpaca's rows: an instruction, an optional input, an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import Conversation, Message

from .cells import optional_text, system_turn, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_instruction", "holds_instruction"]


def holds_instruction(row: Mapping[str, Any]) -> bool:
    """Whether the row has an ``instruction`` and an ``output``."""
    return "instruction" in row and "output" in row


def from_instruction(row: Mapping[str, Any]) -> Conversation:
    """The instruction, a blank line and the input as the user's turn; the output as the assistant's."""
    asked = text_of(row["instruction"], "instruction")
    given = optional_text(row, "input")
    user = Message("user", f"{asked}\n\n{given}" if given else asked)
    return Conversation((*system_turn(row), user, Message("assistant", text_of(row["output"], "output"), train=True)))
