"""Answers with people's word on each: good ones are trained, and bad ones are kept for objectives that learn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .alpaca import from_instruction, holds_instruction
from .conversations import from_conversations, from_messages, holds_conversations, holds_messages
from .pairs import from_pair, holds_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapterkit import Conversation

__all__ = ["from_judged", "holds_judged"]

_LABELS = ("label", "kto_tag")
_ANSWERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], Conversation]], ...] = (
    (holds_messages, from_messages),
    (holds_conversations, from_conversations),
    (holds_pair, from_pair),
    (holds_instruction, from_instruction),
)


def holds_judged(row: Mapping[str, Any]) -> bool:
    """Whether the row has a conversation in any layout, and a ``label`` or ``kto_tag`` that is true or false."""
    return _label(row) in ("true", "false") and any(holds(row) for holds, _ in _ANSWERS)


def from_judged(row: Mapping[str, Any]) -> Conversation:
    """The conversation, desirable or not as its label says."""
    label = _label(row)
    if label not in ("true", "false"):
        raise ValueError(f"its label must be true or false, not {label!r}")
    convert = next((convert for holds, convert in _ANSWERS if holds(row)), None)
    if convert is None:
        raise ValueError(
            "has a label, but no messages, conversations, prompt and completion, or instruction and output"
        )
    return attrs.evolve(convert(row), desirable=label == "true")


def _label(row: Mapping[str, Any]) -> Any:
    value = next((row[name] for name in _LABELS if name in row), None)
    return value.lower() if isinstance(value, str) else value
