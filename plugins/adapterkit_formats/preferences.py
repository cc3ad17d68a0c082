"""A better and a worse answer to the same prompt, which may stand beside them or be what both begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit import Message, Preference

from .alpaca import asked
from .calls import read_tools
from .cells import system_turn, text_of
from .pairs import side
from .turns import check_order, read_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["from_preference", "holds_preference"]

_PROMPTS = ("prompt", "messages", "conversations", "instruction")


def holds_preference(row: Mapping[str, Any]) -> bool:
    """Whether the row has a ``chosen`` and a ``rejected``."""
    return "chosen" in row and "rejected" in row


def from_preference(row: Mapping[str, Any]) -> Preference:
    """The prompt, with the answer that was preferred and the one that was not."""
    answers = [_answer(row[name], name) for name in ("chosen", "rejected")]
    whole = any(message.role != "assistant" for message in (answers[0][0], answers[1][0]))
    if whole:  # each answer brings the prompt along, whether it stands in a column of its own or not
        before, answers = _shared(answers)
        prompt = (*system_turn(row), *before)
    elif any(name in row for name in _PROMPTS):
        prompt = _prompt(row)
    else:
        before, answers = _shared_text(row)
        prompt = (*system_turn(row), *before)
    prompt = tuple(attrs.evolve(message, train=False, weight=1.0) for message in prompt)
    chosen, rejected = answers
    if not chosen or not rejected or not prompt:
        raise ValueError("chosen and rejected must differ in an answer to the same prompt")
    if _plain(chosen) == _plain(rejected):
        raise ValueError("chosen and rejected are the same")
    check_order((*prompt, *chosen))
    check_order((*prompt, *rejected))
    return Preference(prompt, chosen, rejected, read_tools(row))


def _answer(value: Any, what: str) -> tuple[Message, ...]:
    return side(value, what, "assistant", train=True)


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    name = next(name for name in _PROMPTS if name in row)
    if name == "instruction":
        return asked(row)
    turns = side(row[name], name, "user", train=False) if name == "prompt" else read_turns(row[name], name, train=False)
    return (*system_turn(row), *turns)


def _shared(answers: Sequence[tuple[Message, ...]]) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """The turns that both begin with, and the rest of each."""
    chosen, rejected = answers
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if _plain([one]) != _plain([other]):
            break
        count += 1
    return chosen[:count], [chosen[count:], rejected[count:]]


def _shared_text(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """The same of two texts, as far as whole words go; only where no other column could be the prompt."""
    others = sorted(set(row) - {"chosen", "rejected", "system", "tools"})
    if others:
        raise ValueError(
            f"has no prompt; it has {', '.join(map(repr, others))}: columns={{'prompt': …}} says which one it is"
        )
    chosen, rejected = (text_of(row[name], name) for name in ("chosen", "rejected"))
    alike = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    end = max(chosen.rfind(space, 0, alike) for space in " \n\t")
    if end <= 0 or not chosen[:end].strip():
        raise ValueError(
            "chosen and rejected do not begin with the same prompt; columns={'prompt': …} says which column it is"
        )
    rest: list[tuple[Message, ...]] = [(Message("assistant", text[end:], train=True),) for text in (chosen, rejected)]
    return (Message("user", chosen[:end]),), rest


def _plain(messages: Sequence[Message]) -> list[tuple[str, str, str]]:
    return [(message.role, message.content, message.tool_calls) for message in messages]
