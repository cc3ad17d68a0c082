"""A prompt and its completion, each a text or a list of turns; only the completion is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import Conversation, Message

from .calls import read_tools
from .cells import system_turn, text_of
from .turns import check_order, is_turn, is_turns, read_turns

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_pair", "holds_pair", "side"]

_COMPLETIONS = ("completion", "response", "text")


def holds_pair(row: Mapping[str, Any]) -> bool:
    """Whether the row has a ``prompt`` and a ``completion``, or what others call it."""
    return "prompt" in row and any(name in row for name in _COMPLETIONS)


def from_pair(row: Mapping[str, Any]) -> Conversation:
    """The conversation in which the completion answers the prompt, with the optional ``tools``."""
    name = next((name for name in _COMPLETIONS if name in row), "completion")
    prompt = side(row["prompt"], "prompt", "user", train=False)
    completion = side(row[name], name, "assistant", train=True)
    if any(message.role not in ("assistant", "tool") for message in completion):
        raise ValueError(f"{name} may hold only turns of the assistant, and of the tools that it calls")
    return Conversation(check_order((*system_turn(row), *prompt, *completion)), read_tools(row))


def side(value: Any, what: str, role: str, *, train: bool) -> tuple[Message, ...]:
    """A text as a turn of ``role``; or the turns of a list, or a single one."""
    # a text that merely begins with a bracket is a text: only real lists, as JSON and Parquet hold them, are turns
    if not isinstance(value, str) and (is_turns(value) or is_turn(value)):
        return read_turns([value] if is_turn(value) else value, what, train=train)
    return (Message(role, text_of(value, what), train=train),)
