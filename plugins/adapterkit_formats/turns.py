"""Lists of turns, as rows hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapterkit import Message

from .cells import text_of

__all__ = ["check_order", "is_turns", "read_turns"]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


def is_turns(value: Any) -> bool:
    """Whether ``value`` looks like a list of turns, or like the JSON of one, as CSV holds it."""
    if isinstance(value, str):
        return value.lstrip().startswith("[")
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], Mapping)


def read_turns(value: Any, what: str, *, train: bool) -> tuple[Message, ...]:
    """The turns of a list of ``{"role": ..., "content": ...}`` or ``{"from": ..., "value": ...}``, or of its JSON.

    A turn of the assistant counts in the loss when ``train``, unless it says ``"train": false`` or ``"weight": 0``.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{what} is text that is not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{what} must be a list of turns, not {value!r:.60}")
    return tuple(_turn(item, f"{what}[{index}]", train=train) for index, item in enumerate(value))


def check_order(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same turns, when a model can be trained on them.

    Raises:
        ValueError: The system speaks anywhere but first, nothing is asked, or no turn is trained.
    """
    late = [index for index, message in enumerate(messages) if message.role == "system" and index]
    if late:
        raise ValueError(f"the system speaks in turn {late[0] + 1}; it may only speak first")
    if not any(message.role == "assistant" for message in messages):
        raise ValueError("no turn of the assistant, so there is nothing to train")
    if not any(message.train for message in messages):
        raise ValueError("every turn of the assistant is marked as not trained")
    return messages


def _turn(item: Any, what: str, *, train: bool) -> Message:
    if not isinstance(item, Mapping):
        raise ValueError(f"{what} must be an object with a role and a content, not {item!r:.60}")  # noqa: TRY004
    if item.get("tool_calls"):
        raise ValueError(f"{what} calls tools, which records cannot hold")
    said = item.get("role", item.get("from"))
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise ValueError(f"{what} has the unknown role {said!r}; known: {', '.join(_ROLES)}")
    content = _joined(item.get("content", item.get("value")), f"the content of {what}")
    wanted = item.get("train") is not False and item.get("weight") != 0
    return Message(role, text_of(content, f"the content of {what}"), train=train and role == "assistant" and wanted)


def _joined(content: Any, what: str) -> Any:
    """Content in parts, ``[{"type": "text", "text": ...}]``, as one text."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        raise ValueError(f"{what} has parts that are not text")
    return "".join(text_of(part.get("text"), what) for part in content)
