"""Chats and texts that are asked for, as the engine takes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapterkit.contracts import Conversation, Message, Text

from .parameters import MOST_KEYS, MOST_TOKENS, Asked, Bounded, check_depth, check_extras

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ChatAsked", "CompletionAsked"]

MOST_MESSAGES = 2048
MOST_PARTS = 2048
MOST_PROMPTS = 16
MOST_TOOLS = 128
MOST_IDS = 2**20
MOST_NAME = 200

# one bad element is enough to refuse a list: an error for each of millions would take minutes
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=MOST_IDS, fail_fast=True)]
Line = Annotated[str, Field(min_length=1)]
Several = Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)


class Part(BaseModel):
    """A part of what is said; texts only."""

    type: Literal["text"]
    text: str


class Function(BaseModel):
    """A call's function: its name, and its arguments as JSON."""

    name: Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
    arguments: str = "{}"

    @model_validator(mode="after")
    def _check(self) -> Function:
        try:
            given = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise ValueError("arguments must be the JSON of an object")  # noqa: TRY004
        check_depth(given, "arguments")
        return self


class Call(BaseModel):
    """A call of a tool, as an answer had it."""

    id: Annotated[str, Field(max_length=200)] = ""
    type: Literal["function"] = "function"
    function: Function


class Turn(Bounded):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=MOST_PARTS, fail_fast=True)] | None = None
    name: Annotated[str, Field(max_length=200)] | None = None
    tool_calls: Annotated[list[Call], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_call_id: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Turn:
        said = {name: value for name, value in (self.model_extra or {}).items() if value}
        for passed_over in ("refusal", "annotations"):  # answers bring them, and clients send answers back
            said.pop(passed_over, None)
        check_extras(said, type(self).model_fields, "in a message, ")
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs content")
        return self

    def message(self) -> Message:
        """The turn as templates take it; ``developer`` is what newer models call ``system``."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        calls = [
            {
                **({"id": call.id} if call.id else {}),
                "type": "function",
                "function": {"name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")},
            }
            for call in self.tool_calls or ()
        ]
        return Message(
            "system" if self.role == "developer" else self.role,
            content,
            tool_calls=json.dumps(calls, ensure_ascii=False) if calls else "",
            name=(self.name or "") if self.role == "tool" else "",
            tool_call_id=self.tool_call_id or "",
        )


def _offered(function: dict[str, Any]) -> dict[str, Any]:
    """The function as it is given, in its order: templates write it so."""
    name = function.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= MOST_NAME:
        raise ValueError(f"a function needs a name, which is a text of at most {MOST_NAME} characters")
    check_depth(function, "the function")
    return function


class Tool(BaseModel):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Annotated[
        dict[str, Any],
        Field(max_length=MOST_KEYS, json_schema_extra={"required": ["name"]}),
        AfterValidator(_offered),
    ]


class ChatAsked(Asked):
    """The body of ``POST /v1/chat/completions``."""

    operation: ClassVar[str] = "chat"
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["auto", "none"] | None = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatAsked:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs=true only")
        return self

    def prompts(self) -> Sequence[Conversation]:
        """The conversation to answer; with ``tool_choice="none"`` the model does not see the tools."""
        offered = [tool.model_dump() for tool in self.tools or ()] if self.tool_choice != "none" else []
        tools = json.dumps(offered, ensure_ascii=False) if offered else ""
        return [Conversation(tuple(turn.message() for turn in self.messages), tools)]

    def options(self, number: int = 0) -> dict[str, Any]:
        """As of :class:`Asked`; as many tokens as fit where nothing is said, as OpenAI's API has it."""
        given = {**super().options(number), "max_new_tokens": self.max_completion_tokens or self.max_tokens}
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        return given


class CompletionAsked(Asked):
    """The body of ``POST /v1/completions``: texts, or token ids, to go on from as they are."""

    prompt: Line | Ids | Annotated[list[Line], Several] | Annotated[list[Ids], Several]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def prompts(self) -> Sequence[Text | list[int]]:
        """Each prompt."""
        given: Any = self.prompt
        several = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        return [Text(one) if isinstance(one, str) else one for one in several]

    def options(self, number: int = 0) -> dict[str, Any]:
        """As of :class:`Asked`; 16 tokens where nothing is said, as OpenAI's API has it."""
        given = {**super().options(number), "max_new_tokens": self.max_tokens or 16}
        if self.logprobs is not None:
            given["logprobs"] = self.logprobs
        return given
