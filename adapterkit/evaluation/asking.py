"""What rows ask and what they expect: the answers that can be generated and scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from adapterkit.contracts import Conversation, Preference, Text
from adapterkit.data.dataset import Unusable, answers, last_answer
from adapterkit.data.rendering import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from adapterkit.base import Base
    from adapterkit.contracts import Example, Message, Record
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
        expected: The last turn of the assistant: what it says, or the call of a tool as the template writes it.
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


def asked(records: Iterable[Record], renderer: Renderer | None = None) -> Iterator[Asked]:
    """The rows that expect an answer: raw text does not; a last turn that calls tools does for a ``renderer``, which writes it."""
    for row, record in enumerate(records):
        if isinstance(record, Text):
            continue
        turns = (*record.prompt, *record.chosen) if isinstance(record, Preference) else record.messages
        last = last_answer(turns)
        if not last or not (turns[last].content or turns[last].tool_calls):
            continue
        if renderer is not None or not turns[last].tool_calls:
            (prompt,), (expected,) = answers([record], renderer)
            yield Asked(row, prompt, expected)


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
