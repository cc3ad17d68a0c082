"""How a tokenizer's chat template writes conversations: learned by rendering probes, not by reading the template."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import jinja2

from adapterkit.contracts import Message
from adapterkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PROBE", "Chat", "special_tokens"]

PROBE = "adapterkit-probe-5e1d"
_QUESTION = "adapterkit-question-9c27"

# For tokenizers that have no template: every turn on a line of its own, the assistant's closed by the end-of-text token
_PLAIN = (
    "{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
)
_PROBE_CALL = json.dumps([{"type": "function", "function": {"name": PROBE, "arguments": {PROBE: PROBE}}}])


@attrs.frozen
class _Habits:
    """What the probes show.

    Attributes:
        header: What opens a turn of the assistant, when ``add_generation_prompt`` writes something else; else None.
        inserted: What the template writes between the generation prompt and the content: a space, empty thoughts.
        closing: The special token after the content of the last turn; empty when there is none.
        closing_inside: The same for turns that others follow.
    """

    header: str | None
    inserted: str
    closing: str
    closing_inside: str


@attrs.frozen
class Chat:
    """A tokenizer's way to write conversations as text."""

    tokenizer: Any

    @property
    def plain(self) -> bool:
        """Whether the tokenizer has no chat template."""
        return not self.tokenizer.chat_template

    @property
    def end_of_text(self) -> str:
        """The tokenizer's end-of-text token.

        Raises:
            DataError: It has none, so that nothing could teach a model to stop.
        """
        if not self.tokenizer.eos_token:
            raise DataError("the tokenizer has no end-of-text token (eos_token): a model could not learn to stop")
        return str(self.tokenizer.eos_token)

    def render(self, messages: Sequence[Message], tools: str = "", *, opened: bool = False) -> str:
        """The conversation as the template writes it; ``opened`` adds the generation prompt.

        Raises:
            DataError: The template refuses these turns.
        """
        as_text = any(message.tool_calls for message in messages) and self._arguments_as_text
        return self._render([_turn(message, as_text=as_text) for message in messages], tools, opened=opened)

    def whole(self, messages: Sequence[Message], tools: str = "") -> str:
        """The text to train on: that of the template, closed by the end-of-text token when nothing else closes it."""
        text = self.render(messages, tools)
        return text if self.habits.closing or messages[-1].role != "assistant" else text + self.end_of_text

    def prompt(self, messages: Sequence[Message], tools: str = "") -> str:
        """The text after which the assistant's next turn begins."""
        if self.habits.header is None:
            return self.render(messages, tools, opened=True)
        return self.render(messages, tools) + self.habits.header

    def closing(self, *, last: bool) -> str:
        """The special token that ends a turn of the assistant; empty when turns inside a conversation have none."""
        if last:
            return self.habits.closing or self.end_of_text
        return self.habits.closing_inside

    @cached_property
    def call_closing(self) -> str:
        """The special token that ends a turn that calls a tool; empty when the template writes no calls or none ends them."""
        try:
            text = self.render([Message("user", _QUESTION), Message("assistant", "", tool_calls=_PROBE_CALL)])
        except DataError:
            return ""
        return self.last_special(text.rpartition(PROBE)[2]) if PROBE in text else ""

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Finds special tokens in text."""
        return re.compile("|".join(map(re.escape, special_tokens(self.tokenizer))) or r"(?!)")

    def last_special(self, text: str) -> str:
        """The last special token in ``text``; empty when there is none."""
        found = self.special.findall(text)
        return str(found[-1]) if found else ""

    @cached_property
    def habits(self) -> _Habits:
        """What the template does beside the contents.

        Raises:
            DataError: The template does not write the assistant's content as it should.
        """
        asked = [Message("user", _QUESTION)]
        text = self.render([*asked, Message("assistant", PROBE)])
        if text.count(PROBE) != 1:
            raise DataError(f"the chat template writes an assistant's content {text.count(PROBE)} times, not once")
        before, _, after = text.partition(PROBE)
        header, inserted = self._opening(asked, before)
        return _Habits(header, inserted, self._first_special(after), self._closing_inside(asked, before))

    @cached_property
    def _arguments_as_text(self) -> bool:
        """Whether the template takes the arguments of a call as JSON text: it refuses an object, or writes it as Python does."""
        asked = {"role": "user", "content": _QUESTION}
        call = Message("assistant", "", tool_calls=_PROBE_CALL)
        try:
            text = self._render([asked, _turn(call, as_text=False)], "")
        except DataError:
            return True
        return f"'{PROBE}': '{PROBE}'" in text

    def _render(self, turns: list[dict[str, Any]], tools: str, *, opened: bool = False) -> str:
        template = _PLAIN if self.plain else None
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns,
                tools=json.loads(tools) if tools else None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=opened,
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
            roles = ", ".join(turn["role"] for turn in turns) or "none"
            raise DataError(f"the chat template refuses these turns ({roles}): {error}") from error
        return text

    def _opening(self, asked: list[Message], before: str) -> tuple[str | None, str]:
        opened = self.render(asked, opened=True)
        if before.startswith(opened):
            return None, before[len(opened) :]
        bare = self.render(asked)  # the generation prompt already thinks, say: what training writes is what counts
        if before.startswith(bare):
            return before[len(bare) :], ""
        raise DataError("the chat template writes a question differently once it is answered: no prompt can be derived")

    def _closing_inside(self, asked: list[Message], before: str) -> str:
        try:
            text = self.render([*asked, Message("assistant", PROBE), *asked, Message("assistant", "ok")])
        except DataError:
            return ""
        token = self._first_special(text.partition(PROBE)[2])
        # what opens the user's turn does not close the assistant's
        return "" if token in before.partition(_QUESTION)[0] else token

    def _first_special(self, text: str) -> str:
        found = self.special.search(text)
        return found.group() if found else ""


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts that the tokenizer turns into special tokens wherever they stand, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token))


def _turn(message: Message, *, as_text: bool) -> dict[str, Any]:
    """The turn as templates take it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = json.loads(message.tool_calls)
        for call in turn["tool_calls"] if as_text else ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    named = {"name": message.name, "tool_call_id": message.tool_call_id}
    return turn | {key: value for key, value in named.items() if value}
