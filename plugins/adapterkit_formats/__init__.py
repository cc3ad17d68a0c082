"""The data formats that most training sets come in: prompt and completion, messages, ShareGPT, Alpaca, raw text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import DataFormat, hookimpl

from . import alpaca, conversations, pairs, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_formats"]


@hookimpl
def adapterkit_formats() -> Iterator[DataFormat]:
    """Formats that are recognised by a rarer field are asked before commoner ones."""
    yield DataFormat(
        name="messages",
        fields=("messages", "system"),
        matches=conversations.holds_messages,
        convert=conversations.from_messages,
        priority=10,
    )
    yield DataFormat(
        name="sharegpt",
        fields=("conversations", "system"),
        matches=conversations.holds_conversations,
        convert=conversations.from_conversations,
        priority=20,
    )
    yield DataFormat(
        name="prompt-completion",
        fields=("prompt", "completion", "system", "response", "text"),
        matches=pairs.holds_pair,
        convert=pairs.from_pair,
        priority=30,
    )
    yield DataFormat(
        name="alpaca",
        fields=("instruction", "output", "input", "system"),
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
