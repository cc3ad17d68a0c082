"""Alpaca's rows: an instruction, an optional input, an output, and what was said before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adapterkit import Conversation, Message

from .calls import read_tools
from .cells import optional_text, system_turn, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["asked", "from_instruction", "holds_instruction"]


def holds_instruction(row: Mapping[str, Any]) -> bool:
    """Whether the row has an ``instruction`` and an ``output``."""
    return "instruction" in row and "output" in row


def from_instruction(row: Mapping[str, Any]) -> Conversation:
    """The instruction, a blank line and the input as the user's turn; the output as the assistant's.

    The pairs of question and answer in ``history`` go before, and their answers are trained too.
    """
    answer = Message("assistant", text_of(row["output"], "output"), train=True)
    return Conversation((*asked(row), answer), read_tools(row))


def asked(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """All turns but the last answer."""
    instruction = text_of(row["instruction"], "instruction")
    given = optional_text(row, "input")
    user = Message("user", f"{instruction}\n\n{given}" if given else instruction)
    return (*system_turn(row), *_history(row), user)


def _history(row: Mapping[str, Any]) -> tuple[Message, ...]:
    value = row.get("history")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"history is text that is not JSON ({error.msg} at column {error.colno})") from error
    if value is None or isinstance(value, str):
        return ()
    if not isinstance(value, (list, tuple)) or any(not isinstance(p, (list, tuple)) or len(p) != 2 for p in value):
        raise ValueError(f"history must be a list of pairs of question and answer, not {value!r:.60}")
    turns: list[Message] = []
    for index, (question, answer) in enumerate(value):
        turns.append(Message("user", text_of(question, f"history[{index}][0]")))
        turns.append(Message("assistant", text_of(answer, f"history[{index}][1]"), train=True))
    return tuple(turns)
