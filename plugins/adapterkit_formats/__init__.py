"""The data formats that most training sets come in: prompt and completion, messages, ShareGPT, Alpaca, preferences, raw text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import DataFormat, hookimpl

from . import alpaca, conversations, judged, pairs, preferences, raw, segments

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_formats"]

_INSTRUCTION = ("instruction", "input", "history")
_ANSWERED = ("prompt", "completion", "response", "text", "messages", "conversations", *_INSTRUCTION, "output")


@hookimpl
def adapterkit_formats() -> Iterator[DataFormat]:
    """Formats that are recognised by a rarer field are asked before commoner ones."""
    yield DataFormat(
        name="preference",
        fields=("prompt", "chosen", "rejected", "messages", "conversations", *_INSTRUCTION, "system", "tools"),
        matches=preferences.holds_preference,
        convert=preferences.from_preference,
        priority=4,
        named=("chosen", "rejected"),
    )
    yield DataFormat(
        name="judged",
        fields=(*_ANSWERED, "label", "kto_tag", "system", "tools"),
        matches=judged.holds_judged,
        convert=judged.from_judged,
        priority=6,
        named=("label", "kto_tag"),
    )
    yield DataFormat(
        name="messages",
        fields=("messages", "system", "tools"),
        matches=conversations.holds_messages,
        convert=conversations.from_messages,
        priority=10,
    )
    yield DataFormat(
        name="sharegpt",
        fields=("conversations", "system", "tools"),
        matches=conversations.holds_conversations,
        convert=conversations.from_conversations,
        priority=20,
    )
    yield DataFormat(
        name="segments",
        fields=("segments",),
        matches=segments.holds_segments,
        convert=segments.from_segments,
        priority=25,
    )
    yield DataFormat(
        name="prompt-completion",
        fields=("prompt", "completion", "system", "response", "text", "tools"),
        matches=pairs.holds_pair,
        convert=pairs.from_pair,
        priority=30,
    )
    yield DataFormat(
        name="alpaca",
        fields=("instruction", "output", "input", "system", "history", "tools"),
        matches=alpaca.holds_instruction,
        convert=alpaca.from_instruction,
        priority=40,
    )
    yield DataFormat(
        name="text",
        fields=("text",),
        matches=raw.holds_only_text,
        convert=raw.from_text,
        priority=90,
    )
