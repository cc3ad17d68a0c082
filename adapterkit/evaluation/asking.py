"""What rows ask and what they expect: the answers that can be generated and scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Conversation, Message, Preference, Text
from adapterkit.data.dataset import Unusable
from adapterkit.data.rendering import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from adapterkit.base import Base
    from adapterkit.contracts import Example, Record
    from adapterkit.generation import Prompt

__all__ = ["Asked", "asked", "longest_answer", "that_fit"]

ROOM = 4
"""Tokens that an answer may have beyond the longest expected one, so that one that does not end is seen not to."""


@attrs.frozen
class Asked:
    """A row that expects an answer.

    Attributes:
        row: Its number among the rows that were scored.
        prompt: The turns before the answer.
        expected: The content of the last turn of the assistant.
    """

    row: int
    prompt: Prompt
    expected: str

    def readable(self) -> str:
        """The prompt as people read it: what the user says, or all turns with who says them."""
        turns: Sequence[Message] = self.prompt.messages if isinstance(self.prompt, Conversation) else self.prompt  # type: ignore[assignment]
        if [turn.role for turn in turns] == ["user"]:
            return turns[0].content
        return "\n\n".join(f"{turn.role}: {turn.content or turn.tool_calls}" for turn in turns)


def asked(records: Iterable[Record]) -> Iterator[Asked]:
    """The rows that expect an answer in words: raw text does not, nor does a last turn that only calls tools."""
    for row, record in enumerate(records):
        turns = _turns(record)
        last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=0)
        if last and turns[last].content:
            tools = "" if isinstance(record, Text) else record.tools
            before = turns[:last]
            prompt: Any = Conversation(before, tools=tools) if tools else before
            yield Asked(row, prompt, turns[last].content)


def longest_answer(base: Base, asked: Sequence[Asked]) -> int:
    """How many tokens the longest expected answer has, and a few more."""
    ids = base.tokenizer([one.expected for one in asked], add_special_tokens=False)["input_ids"]
    return max(map(len, ids)) + ROOM


def that_fit(
    base: Base, asked: Sequence[Asked], examples: Sequence[Example], new: int, before: int
) -> tuple[list[Asked], list[Unusable]]:
    """The rows whose prompts leave room for an answer in the base's context, and what to say of the others.

    Args:
        base: Of the context and the tokenizer.
        asked: Rows that expect an answer.
        examples: All rows, encoded.
        new: How many tokens an answer may have.
        before: How many virtual tokens go before a prompt.
    """
    context = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    if not context:
        return list(asked), []
    renderer, most = Renderer(base.tokenizer, int(context)), int(context) - new - before
    good, bad = [], []
    for one in asked:
        whole = len(examples[one.row].input_ids) + examples[one.row].truncated  # a prompt is shorter
        length = whole if whole <= most else len(renderer.prompt(one.prompt))
        if length <= most:
            good.append(one)
        else:
            reason = f"its prompt has {length} tokens, which with {new} new ones are more than the base's {context}"
            bad.append(Unusable(f"row {one.row + 1}", f"{reason}: its loss counts, but it is not answered"))
    return good, bad


def _turns(record: Record) -> tuple[Message, ...]:
    if isinstance(record, Conversation):
        return record.messages
    return (*record.prompt, *record.chosen) if isinstance(record, Preference) else ()
