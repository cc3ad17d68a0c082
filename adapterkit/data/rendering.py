"""Turns records into tokens for training, prompts into tokens for generation, and generated tokens into text."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Example, Message, Text
from adapterkit.errors import DataError

from .chat import Chat
from .lengths import IGNORED, kept
from .spans import Rendered, check_contents, render_conversation, render_text
from .tokens import Tokens, leading_tokens, tokenize, tokenize_all

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
    ``"prompt\n"``, ``"completion<|endoftext|>"``. Raw text is trained whole, with an end-of-text token.

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

    def prompt(self, asked: str | Text | Iterable[Message | Mapping[str, str]]) -> list[int]:
        """The tokens after which the model is to go on: exactly those that stand before the completion in training.

        Args:
            asked: What the user says; or turns, as messages or as mappings with ``role`` and ``content``; or
                :class:`~adapterkit.Text` to go on from as it is, without a template.

        Raises:
            DataError: The template refuses the turns, or a content could end one.
        """
        if isinstance(asked, Text):
            text = asked.text
        else:
            messages = (Message("user", asked),) if isinstance(asked, str) else tuple(map(_message, asked))
            check_contents(self._chat, messages)
            text = self._chat.prompt(messages)
        (ids,) = tokenize(self.tokenizer, [text])
        return self._before(ids, templated=not (isinstance(asked, Text) or self._chat.plain)) + ids

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
        return text.removeprefix(self._chat.special.sub("", self._chat.habits.inserted).strip()).strip()

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer)

    @cached_property
    def _leading(self) -> list[int]:
        return leading_tokens(self.tokenizer)

    @cached_property
    def _stops(self) -> tuple[int, ...]:
        ends = dict.fromkeys([self._chat.closing(last=True), self._chat.end_of_text])
        return tuple(self.tokenizer.convert_tokens_to_ids(list(ends)))

    def _render(self, record: Record) -> Rendered | DataError:
        try:
            if isinstance(record, Text):
                return render_text(self._chat, record.text)
            return render_conversation(self._chat, record.messages)
        except DataError as error:
            return error

    def _tokenize(self, rendered: Sequence[Rendered]) -> Iterator[Tokens | DataError]:
        for start in range(0, len(rendered), _AT_ONCE):
            yield from tokenize_all(self.tokenizer, rendered[start : start + _AT_ONCE])

    def _example(self, one: Rendered, tokens: Tokens | DataError) -> Example | DataError:
        if isinstance(tokens, DataError):
            return tokens
        leading = self._before(tokens.ids, templated=not (one.raw or self._chat.plain))
        ids = leading + tokens.ids
        labels = (leading if one.raw else [IGNORED] * len(leading)) + [IGNORED] * len(tokens.ids)
        for start, end in tokens.trained:
            labels[len(leading) + start : len(leading) + end] = tokens.ids[start:end]
        keep = kept(labels, self.max_length, raw=one.raw, keep_first=ids[:1] == [self.tokenizer.bos_token_id])
        example = Example(tuple(ids[i] for i in keep), tuple(labels[i] for i in keep), len(ids) - len(keep))
        if not example.trained:
            return DataError(f"no trained token is left: {len(ids)} tokens, max_length={self.max_length}")
        return example

    def _before(self, ids: Sequence[int], *, templated: bool) -> list[int]:
        """What the tokenizer puts before ``ids``; a template writes that itself, and nothing is put there twice."""
        if templated or list(ids[: len(self._leading)]) == self._leading:
            return []
        return self._leading


def _message(turn: Message | Mapping[str, str]) -> Message:
    return turn if isinstance(turn, Message) else Message(turn["role"], turn["content"])
