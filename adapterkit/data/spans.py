"""Finds, in a rendered conversation, the text that counts in the loss; what cannot be proven is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from adapterkit.contracts import Message
from adapterkit.errors import DataError

from .chat import PROBE
from .tools import call_span, check_calls, check_results, check_tools

if TYPE_CHECKING:
    from adapterkit.contracts import Conversation, Text

    from .chat import Chat

__all__ = ["Rendered", "check_contents", "render_conversation", "render_text"]


@attrs.frozen
class Rendered:
    """A record as text.

    Attributes:
        text: All of it.
        spans: The trained parts, as character ranges in order.
        weights: How much each part counts; empty when each counts 1.
        prompt: Where the last trained turn's prompt ends, when ``text`` begins with exactly that prompt; else None.
        raw: Whether every token is trained.
        pieces: Where the text may be cut before it is tokenized, when its parts must be tokenized apart; else empty.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    weights: tuple[float, ...] = ()
    prompt: int | None = None
    raw: bool = False
    pieces: tuple[int, ...] = ()


def render_conversation(chat: Chat, record: Conversation) -> Rendered:
    """A conversation as text, with its trained parts.

    Raises:
        DataError: The template refuses it or leaves tools out, a content could end a turn, or a trained part cannot be
            located for sure.
    """
    messages, tools = record.messages, record.tools
    check_contents(chat, messages, tools)
    text = chat.whole(messages, tools)
    check_tools(chat, messages, tools, text)
    check_results(messages, text)
    check_calls(chat, messages, tools, text)
    spans, prompt = _trained_spans(chat, messages, tools, text)
    if not spans:
        raise DataError("no turn is trained")
    weights = tuple(message.weight for message in messages if message.train)
    return Rendered(text, spans, weights if any(weight != 1 for weight in weights) else (), prompt)


def render_text(chat: Chat, record: Text) -> Rendered:
    """Raw text with an end-of-text token, or text of which parts are trained as it is; special tokens in it are meant.

    Raises:
        DataError: The tokenizer has no end-of-text token, or no part is trained.
    """
    text = record.text
    if record.trained is None:
        whole = text if text.endswith(chat.end_of_text) else text + chat.end_of_text
        return Rendered(whole, ((0, len(whole)),), raw=True)
    if not record.trained:
        raise DataError("no part of the text is trained")
    edges = sorted({0, len(text), *(edge for part in record.trained for edge in part)})
    return Rendered(text, record.trained, pieces=tuple(edges))


def check_contents(chat: Chat, messages: tuple[Message, ...], tools: str = "") -> None:
    """Refuse contents that hold the text of a special token.

    The tokenizer would take it for the token itself: whoever wrote the content could end a turn and open another.
    """
    said = [(f"the {one.role}'s turn {number}", one.content) for number, one in enumerate(messages, 1)]
    called = [(f"the call in turn {number}", one.tool_calls) for number, one in enumerate(messages, 1)]
    named = [(f"the name in turn {number}", one.name + one.tool_call_id) for number, one in enumerate(messages, 1)]
    for where, text in (*said, *called, *named, ("the list of tools", tools)):
        found = chat.special.search(text)
        if found:
            raise DataError(
                f"{where} holds {found.group()!r}, which the tokenizer would read as a special token; remove it or write it "
                "differently"
            )


def _trained_spans(
    chat: Chat, messages: tuple[Message, ...], tools: str, text: str
) -> tuple[tuple[tuple[int, int], ...], int | None]:
    """The trained character ranges of ``text``, and where the last one's prompt ends.

    A trained turn goes from the end of its prompt, which is what the template writes for the turns before it and a
    generation prompt, up to the special token that ends the turn. Where later turns make the template rewrite earlier
    ones, so that the prompt is no beginning of the whole, the turn is found by what changes when its content does.
    """
    spans: list[tuple[int, int]] = []
    end_of_prompt = None
    for index, message in enumerate(messages):
        if message.train:
            closing = chat.closing(last=index == len(messages) - 1)
            end_of_prompt = _prompt_end(chat, messages[:index], tools, text)
            if message.tool_calls:
                spans.append(call_span(chat, messages, index, tools, text, end_of_prompt))
                continue
            span = None
            if closing and end_of_prompt is not None:
                span = _to_closing(chat, text, end_of_prompt, message.content, closing)
            if span is None:
                end_of_prompt = None
                span = _by_substitution(chat, messages, index, tools, text, closing)
            spans.append(span)
    return tuple(spans), end_of_prompt


def _prompt_end(chat: Chat, before: tuple[Message, ...], tools: str, text: str) -> int | None:
    try:
        prompt = chat.prompt(before, tools)
    except DataError:
        return None  # a template may refuse what is not a whole conversation
    return len(prompt) if text.startswith(prompt) else None


def _to_closing(chat: Chat, text: str, start: int, content: str, closing: str) -> tuple[int, int] | None:
    """From ``start`` to the first special token; contents hold none, so it is the one that ends the turn."""
    inserted = chat.habits.inserted
    body = start + len(inserted) if text.startswith(inserted, start) else start
    found = chat.special.search(text, body)
    if found is None or found.group() != closing or not _same(text[body : found.start()], content):
        return None
    return start, found.end()


def _by_substitution(
    chat: Chat, messages: tuple[Message, ...], index: int, tools: str, text: str, closing: str
) -> tuple[int, int]:
    other = list(messages)
    other[index] = Message("assistant", PROBE)
    before, _, after = chat.whole(other, tools).partition(PROBE)
    end = len(text) - len(after)
    proven = (
        text.startswith(before) and text.endswith(after) and _same(text[len(before) : end], messages[index].content)
    )
    found = chat.special.search(after) if closing else None
    if not proven or (closing and (found is None or found.group() != closing)):
        raise DataError(
            f"cannot tell which part of the rendered text is the assistant's turn {index + 1}: the chat template "
            'rewrites it with other turns. Mark the turn with "train": false, or give each turn as a row of its own'
        )
    # what the template puts between prompt and content, such as a space, is for the model to write
    start = len(before.removesuffix(chat.habits.inserted))
    return start, end + (found.end() if found else 0)


def _same(body: str, content: str) -> bool:
    """Whether ``body`` is ``content`` as a template may write it: trimmed, its thoughts laid out anew or left out."""
    written, meant = "".join(body.split()), "".join(content.split())
    return bool(written) and (meant.endswith(written) or written == meant)
