"""Training rows in one canonical form, and the record by which a plugin teaches adapterkit to read another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Conversation", "DataFormat", "Message", "Record", "Text"]


@attrs.frozen
class Message:
    """One turn. ``train`` says whether its tokens, end-of-turn token included, count in the loss."""

    role: str
    content: str
    train: bool = False


@attrs.frozen
class Conversation:
    """Turns in order; rendered with the tokenizer's chat template."""

    messages: tuple[Message, ...]


@attrs.frozen
class Text:
    """Raw text; every token is trained, and no template is applied."""

    text: str


Record: TypeAlias = Conversation | Text


@attrs.frozen(eq=False, kw_only=True)
class DataFormat:
    """A shape that rows may have.

    Attributes:
        name: Lower-case with hyphens, such as ``"prompt-completion"``.
        fields: The fields that ``columns={field: column}`` may name for this format; the first ones that it needs.
        matches: Whether a row has this shape; the first row decides for all. Formats are asked in order of ``priority``.
        convert: The row in canonical form. Raises ValueError with the reason when the row cannot be used.
        priority: Lower is asked first: a format that is recognised by a rarer field goes before a commoner one.
    """

    name: str
    fields: tuple[str, ...]
    matches: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Mapping[str, Any]], Record]
    priority: int = 100
