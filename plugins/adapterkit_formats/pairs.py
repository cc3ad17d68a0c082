"""A prompt and its completion, each a text or a list of turns; only the completion is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import Conversation, Message

from .cells import system_turn, text_of
from .turns import check_order, is_turns, read_turns

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_pair", "holds_pair"]

_COMPLETIONS = ("completion", "response", "text")


def holds_pair(row: Mapping[str, Any]) -> bool:
    """Whether the row has a ``prompt`` and a ``completion``, or what others call it."""
    return "prompt" in row and any(name in row for name in _COMPLETIONS)


def from_pair(row: Mapping[str, Any]) -> Conversation:
    """The conversation in which the completion answers the prompt."""
    name = next((name for name in _COMPLETIONS if name in row), "completion")
    prompt = _side(row["prompt"], "prompt", "user", train=False)
    completion = _side(row[name], name, "assistant", train=True)
    if any(message.role != "assistant" for message in completion):
        raise ValueError(f"{name} may hold only turns of the assistant")
    return Conversation(check_order((*system_turn(row), *prompt, *completion)))


def _side(value: Any, what: str, role: str, *, train: bool) -> tuple[Message, ...]:
    # a text that merely begins with a bracket is a text: only real lists, as JSON and Parquet hold them, are turns
    if not isinstance(value, str) and is_turns(value):
        return read_turns(value, what, train=train)
    return (Message(role, text_of(value, what), train=train),)
