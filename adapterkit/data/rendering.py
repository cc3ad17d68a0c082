"""Turns records into tokens for training, prompts into tokens for generation, and generated tokens into text."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Conversation, Example, Message, Preference, Text
from adapterkit.errors import DataError

from .chat import Chat
from .lengths import IGNORED, kept
from .spans import Rendered, check_contents, render_conversation, render_text
from .tokens import Tokens, leading_tokens, tokenize, tokenize_all
from .tools import check_calls, check_results, check_tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from adapterkit.contracts import Record

__all__ = ["Renderer"]

_AT_ONCE = 1000


@attrs.frozen
class Renderer:
    r"""Encodes for one tokenizer.

    Conversations are written by the tokenizer's chat template. Trained are the turns that say so, each from the end of
    its prompt up to and including the token that ends the turn; a line break after that token is not. A tokenizer
    without a template writes every turn on a line of its own, and its end-of-text token after the assistant's:
    ``"prompt\n"``, ``"completion<|endoftext|>"``. Raw text is trained whole, with an end-of-text token. Of a preference, the
    chosen answer is trained.

    Attributes:
        tokenizer: Of transformers, fast or slow.
        max_length: The most tokens that an example may have.
    """

    tokenizer: Any
    max_length: int

    def encode(self, record: Record) -> Example:
        """The record as tokens.

        One that is too long loses tokens from the front (of the prompt, that is, but for a leading beginning-of-text
        token), and raw text from the end.

        Raises:
            DataError: The template refuses the record, a content could end a turn, or what is trained cannot be proven.
        """
        (one,) = self.encode_all([record])
        if isinstance(one, DataError):
            raise one
        return one

    def encode_all(self, records: Iterable[Record]) -> list[Example | DataError]:
        """Like :meth:`encode` for many records: an example, or the reason why there is none, for each."""
        rendered = [self._render(record) for record in records]
        good = [one for one in rendered if isinstance(one, Rendered)]
        tokens = self._tokenize(good)
        return [one if isinstance(one, DataError) else self._example(one, next(tokens)) for one in rendered]

    def prompt(self, asked: str | Text | Conversation | Iterable[Message | Mapping[str, Any]]) -> list[int]:
        """The tokens after which the model is to go on: exactly those that stand before the completion in training.

        Args:
            asked: What the user says; or turns, as messages or as mappings with ``role`` and ``content``; or a
                :class:`~adapterkit.Conversation`, which may bring tools; or :class:`~adapterkit.Text` to go on from as it
                is, without a template.

        Raises:
            DataError: The template refuses the turns or leaves tools out, or a content could end a turn.
        """
        if isinstance(asked, Text):
            text = asked.text
        else:
            messages, tools = _turns(asked)
            check_contents(self._chat, messages, tools)
            text = self._chat.prompt(messages, tools)
            check_tools(self._chat, messages, tools, text)
            check_results(messages, text)
            check_calls(self._chat, [attrs.evolve(message, train=False) for message in messages], tools, text)
        (ids,) = tokenize(self.tokenizer, [text])
        return self._before(ids, templated=not (isinstance(asked, Text) or self._chat.plain)) + ids

    def answer(self, record: Conversation) -> str:
        """What the model should answer in the record's last turn of the assistant, as :meth:`decode` gives what it answers.

        Raises:
            DataError: As :meth:`encode`.
        """
        last = max(index for index, message in enumerate(record.messages) if message.role == "assistant")
        turns = [
            attrs.evolve(message, train=index == last) for index, message in enumerate(record.messages[: last + 1])
        ]
        one = self._render(Conversation(tuple(turns), record.tools))
        if isinstance(one, DataError):
            raise one
        start, end = one.spans[-1]
        (ids,) = tokenize(self.tokenizer, [one.text[start:end]])
        return self.decode(ids)

    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: what the template puts after an assistant's content, and end of text."""
        return self._stops

    def decode(self, ids: Sequence[int]) -> str:
        """Generated tokens as text: up to the first stop token, without special tokens and surrounding whitespace.

        What the template itself writes before an answer, such as empty thoughts, is left out.
        """
        end = next((index for index, token in enumerate(ids) if token in self._stops), len(ids))
        text: str = self.tokenizer.decode(
            list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        ).strip()
        return text.removeprefix(self.inserted).strip()

    @cached_property
    def inserted(self) -> str:
        """What the template itself writes before an answer, as text."""
        return self._chat.special.sub("", self._chat.habits.inserted).strip()

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer)

    @cached_property
    def _leading(self) -> list[int]:
        return leading_tokens(self.tokenizer)

    @cached_property
    def _stops(self) -> tuple[int, ...]:
        ends = [self._chat.closing(last=True), self._chat.call_closing, self._chat.end_of_text]
        return tuple(self.tokenizer.convert_tokens_to_ids([token for token in dict.fromkeys(ends) if token]))

    def _render(self, record: Record) -> Rendered | DataError:
        try:
            if isinstance(record, Text):
                return render_text(self._chat, record)
            if isinstance(record, Preference):
                record = Conversation((*record.prompt, *record.chosen), record.tools)
            if not record.desirable:
                return DataError("its answer is marked as undesirable, and only desirable ones are trained")
            return render_conversation(self._chat, record)
        except DataError as error:
            return error

    def _tokenize(self, rendered: Sequence[Rendered]) -> Iterator[Tokens | DataError]:
        for start in range(0, len(rendered), _AT_ONCE):
            yield from tokenize_all(self.tokenizer, rendered[start : start + _AT_ONCE])

    def _example(self, one: Rendered, tokens: Tokens | DataError) -> Example | DataError:
        if isinstance(tokens, DataError):
            return tokens
        leading = self._before(tokens.ids, templated=bool(one.pieces) or not (one.raw or self._chat.plain))
        ids = leading + tokens.ids
        labels = (leading if one.raw else [IGNORED] * len(leading)) + [IGNORED] * len(tokens.ids)
        weights = [1.0] * len(ids)
        counts = one.weights or (1.0,) * len(tokens.trained)
        for (start, end), weight in zip(tokens.trained, counts, strict=True):
            labels[len(leading) + start : len(leading) + end] = tokens.ids[start:end]
            weights[len(leading) + start : len(leading) + end] = [weight] * (end - start)
        keep = kept(labels, self.max_length, raw=one.raw, keep_first=ids[:1] == [self.tokenizer.bos_token_id])
        example = Example(
            tuple(ids[i] for i in keep),
            tuple(labels[i] for i in keep),
            len(ids) - len(keep),
            tuple(weights[i] for i in keep) if one.weights else None,
        )
        if not example.trained:
            return DataError(f"no trained token is left: {len(ids)} tokens, max_length={self.max_length}")
        return example

    def _before(self, ids: Sequence[int], *, templated: bool) -> list[int]:
        """What the tokenizer puts before ``ids``; a template writes that itself, and nothing is put there twice."""
        if templated or list(ids[: len(self._leading)]) == self._leading:
            return []
        return self._leading


def _turns(asked: str | Conversation | Iterable[Message | Mapping[str, Any]]) -> tuple[tuple[Message, ...], str]:
    if isinstance(asked, Conversation):
        return asked.messages, asked.tools
    return (Message("user", asked),) if isinstance(asked, str) else tuple(map(_message, asked)), ""


def _message(turn: Message | Mapping[str, Any]) -> Message:
    if isinstance(turn, Message):
        return turn
    calls = turn.get("tool_calls")
    return Message(
        turn["role"],
        (turn.get("content") or "") if calls else turn["content"],
        tool_calls=json.dumps(calls, ensure_ascii=False) if calls else "",
        name=turn.get("name") or "",
        tool_call_id=turn.get("tool_call_id") or "",
    )
