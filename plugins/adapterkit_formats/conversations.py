"""Whole conversations in one column; every turn of the assistant is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import Conversation

from .calls import read_tools
from .cells import system_turn
from .turns import check_order, is_turns, read_turns

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_conversations", "from_messages", "holds_conversations", "holds_messages"]


def holds_messages(row: Mapping[str, Any]) -> bool:
    """Whether the row has turns in ``messages``."""
    return is_turns(row.get("messages"))


def from_messages(row: Mapping[str, Any]) -> Conversation:
    """The turns of ``messages``, after those of the optional ``system``, with the optional ``tools``."""
    return _conversation(row, "messages")


def holds_conversations(row: Mapping[str, Any]) -> bool:
    """Whether the row has turns in ``conversations``."""
    return is_turns(row.get("conversations"))


def from_conversations(row: Mapping[str, Any]) -> Conversation:
    """The turns of ``conversations``, after those of the optional ``system``, with the optional ``tools``."""
    return _conversation(row, "conversations")


def _conversation(row: Mapping[str, Any], column: str) -> Conversation:
    messages = (*system_turn(row), *read_turns(row[column], column, train=True))
    return Conversation(check_order(messages), read_tools(row))
