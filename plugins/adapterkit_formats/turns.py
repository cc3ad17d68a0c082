"""Lists of turns, as rows hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from adapterkit import Message

from .calls import read_calls
from .cells import text_of

__all__ = ["check_order", "is_turn", "is_turns", "read_turns"]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
_CALLS = ("function_call", "tool_call")
"""Roles of turns whose content is nothing but a call."""
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_DETAILS = ("train_detail", "training_detail")
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6


def is_turn(value: Any) -> bool:
    """Whether ``value`` looks like a turn."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def is_turns(value: Any) -> bool:
    """Whether ``value`` looks like a list of turns, or like the JSON of one, as CSV holds it."""
    if isinstance(value, str):
        return value.lstrip().startswith("[")
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], Mapping)


def read_turns(value: Any, what: str, *, train: bool) -> tuple[Message, ...]:
    """The turns of a list of ``{"role": ..., "content": ...}`` or ``{"from": ..., "value": ...}``, or of its JSON.

    A turn of the assistant counts in the loss when ``train``, unless it says ``"train": false`` or ``"weight": 0``; another
    weight is how much each of its tokens counts. Calls of tools belong to it.
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
    said = item.get("role", item.get("from"))
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise ValueError(f"{what} has the unknown role {said!r}; known: {', '.join(_ROLES)}")
    content = _joined(item.get("content", item.get("value")), f"the content of {what}")
    calls = ""
    if said in _CALLS:
        calls, content = read_calls(text_of(content, f"the content of {what}"), f"the content of {what}"), ""
    elif role == "assistant":
        calls = read_calls(item.get("tool_calls", item.get("function_call")), f"{what}.tool_calls")
        content = _with_thoughts(item, content)
    weight = _weight(item, what)
    trained = train and role == "assistant" and weight > 0
    return Message(
        role,
        _content(content, f"the content of {what}", role=role, calls=calls),
        train=trained,
        weight=weight if trained else 1.0,
        tool_calls=calls,
        name=str(item.get("name") or "") if role == "tool" else "",
        tool_call_id=str(item.get("tool_call_id") or ""),
    )


def _content(content: Any, what: str, *, role: str, calls: str) -> str:
    """What is said; a turn that calls tools may say nothing beside, and a tool may answer with nothing or with an object."""
    if role == "tool" and not isinstance(content, str) and content is not None:
        return json.dumps(content, ensure_ascii=False)
    if (calls or role == "tool") and (content is None or (isinstance(content, str) and not content.strip())):
        return ""
    return text_of(content, what)


def _weight(item: Mapping[str, Any], what: str) -> float:
    """How much a turn counts; 0 when it is marked as not trained."""
    detail = next((name for name in _DETAILS if item.get(name)), None)
    if detail:
        raise ValueError(
            f"{what} has a {detail}, but only whole turns are trained: take it out, or give segments of text"
        )
    flag = item.get("train", item.get("training"))
    if flag not in (None, True, False):
        raise ValueError(f'"train" of {what} must be true or false, not {flag!r}')
    weight = item.get("weight")
    weight = 1.0 if weight is None else weight
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight < 0:
        raise ValueError(f'"weight" of {what} must be a number and at least 0, not {weight!r}')
    if weight and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:  # losses are float32: beyond, they are infinite, or none
        raise ValueError(
            f'"weight" of {what} must be 0, or between {LEAST_WEIGHT:g} and {MOST_WEIGHT:g}, not {weight!r:.40}'
        )
    return 0.0 if flag is not None and not flag else float(weight)


def _with_thoughts(item: Mapping[str, Any], content: Any) -> Any:
    """The content after the thoughts that led to it, which some layouts hold apart, as most models write them."""
    thoughts = next((item[name] for name in _THOUGHTS if isinstance(item.get(name), str) and item[name].strip()), "")
    if not thoughts or (isinstance(content, str) and "<think>" in content):
        return content
    return f"<think>\n{thoughts.strip()}\n</think>\n\n{content or ''}"


def _joined(content: Any, what: str) -> Any:
    """Content in parts, ``[{"type": "text", "text": ...}]``, as one text."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        raise ValueError(f"{what} has parts that are not text")
    return "".join(text_of(part.get("text"), what) for part in content)
