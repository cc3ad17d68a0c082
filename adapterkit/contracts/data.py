"""Training rows in one canonical form, and the record by which a plugin teaches adapterkit to read another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Conversation", "DataFormat", "Message", "Preference", "Record", "Text"]


@attrs.frozen
class Message:
    """One turn.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: What is said; empty where a turn only calls tools.
        train: Whether its tokens, end-of-turn token included, count in the loss.
        weight: How much each of them counts, above 0; 2 is the same as having the turn twice.
        tool_calls: The JSON text of a list of ``{"type": "function", "function": {"name": …, "arguments": {…}}}``, as
            transformers' chat templates take them; empty where nothing is called.
        name: Of the tool that answers, where the data says so.
        tool_call_id: Of the call that is answered, where the data says so.
    """

    role: str
    content: str
    train: bool = False
    weight: float = 1.0
    tool_calls: str = ""
    name: str = ""
    tool_call_id: str = ""


@attrs.frozen
class Conversation:
    """Turns in order; rendered with the tokenizer's chat template.

    Attributes:
        messages: The turns.
        tools: The JSON text of a list of the tools that may be called, each a JSON schema; empty where there are none.
        desirable: Whether the answers are as they should be: rows that people have judged hold bad ones too, and those are
            left out of supervised fine-tuning.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    desirable: bool = True


@attrs.frozen
class Preference:
    """Two ways to go on from the same turns, of which the first was preferred.

    Supervised fine-tuning trains ``chosen`` and leaves ``rejected`` out.

    Attributes:
        prompt: The turns that both answer.
        chosen: The turns of the better answer.
        rejected: The turns of the worse one.
        tools: As in :class:`Conversation`.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: str = ""


@attrs.frozen
class Text:
    """Raw text, and no template is applied.

    Attributes:
        text: All of it.
        trained: The parts that are trained, as ranges of characters in order. None is the whole text and an end-of-text
            token; where parts are given, the text is taken exactly as it is.
    """

    text: str
    trained: tuple[tuple[int, int], ...] | None = None


Record: TypeAlias = Conversation | Preference | Text


@attrs.frozen(eq=False, kw_only=True)
class DataFormat:
    """A shape that rows may have.

    Attributes:
        name: Lower-case with hyphens, such as ``"prompt-completion"``.
        fields: The fields that ``columns={field: column}`` may name for this format; the first ones that it needs.
        matches: Whether a row has this shape; the first row decides for all. Formats are asked in order of ``priority``.
        convert: The row in canonical form. Raises ValueError with the reason when the row cannot be used.
        priority: Lower is asked first: a format that is recognised by a rarer field goes before a commoner one.
        named: Fields that mean something of their own, such as ``("label",)``: where ``columns`` are given, the format is asked
            only when they name one of these, and no error suggests it.
    """

    name: str
    fields: tuple[str, ...]
    matches: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Mapping[str, Any]], Record]
    priority: int = 100
    named: tuple[str, ...] = ()
