"""Proves that a chat template writes tools and calls of tools, and finds the calls in what it wrote."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import DataError

from .chat import PROBE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapterkit.contracts import Message

    from .chat import Chat

__all__ = ["call_span", "check_calls", "check_results", "check_tools", "leaves"]


def check_tools(chat: Chat, messages: Sequence[Message], tools: str, text: str) -> None:
    """Refuse tools that leave no trace in ``text``: a template that knows none passes over them without a word.

    The name of each tool and of each of its parameters must stand there more often than without the tools.

    Raises:
        DataError: Names what is missing; or a tool has no name.
    """
    if not tools:
        return
    try:
        without = chat.render(messages)
    except DataError:
        without = ""  # the template takes such turns with tools only
    for name in dict.fromkeys(_names(json.loads(tools))):
        if text.count(name) <= without.count(name):
            raise DataError(
                f"the chat template does not write the tool or parameter {name!r}: the model would never see it. Use a base "
                "whose template takes tools, or rows without them"
            )


def check_results(messages: Sequence[Message], text: str) -> None:
    """Refuse what a tool answered when it is not in ``text``.

    Raises:
        DataError: Names the turn.
    """
    for index, message in enumerate(messages):
        if message.role == "tool" and not any(form in _bare(text) for form in _forms(message.content)):
            raise DataError(f"the chat template does not write what the tool answers in turn {index + 1}")


def check_calls(chat: Chat, messages: Sequence[Message], tools: str, text: str) -> None:
    """Refuse calls in turns that are not trained when the template does not write them in full.

    Raises:
        DataError: Names the turn.
    """
    for index, message in enumerate(messages):
        if message.tool_calls and not message.train:
            probed, probes = _probed(message)
            _check_written(chat.whole([*messages[:index], probed, *messages[index + 1 :]], tools), probes, index)
            _check_parts(message, text, index)


def call_span(
    chat: Chat, messages: Sequence[Message], index: int, tools: str, text: str, start: int | None
) -> tuple[int, int]:
    """Where the turn that calls tools stands in ``text``: from ``start``, the end of its prompt, to the token that ends it.

    The conversation is written again with probes for the turn's content, names and arguments: what follows the last of
    them, where the turn is the last one, is what closes it. All that stands around them must stand around the real ones too.

    Raises:
        DataError: The template does not write the calls, or it cannot be told what belongs to them.
    """
    probed, probes = _probed(messages[index])
    alone = chat.whole([*messages[:index], probed], tools)
    first, last = _check_written(alone, probes, index)
    token = chat.last_special(alone[last:])
    turn = alone[first : alone.rfind(token) + len(token)]
    full = chat.whole([*messages[:index], probed, *messages[index + 1 :]], tools)
    place = full.find(turn, start or 0)
    rest = full[place + len(turn) :]  # what the template writes for the turns that follow
    end = len(text) - len(rest)
    proven = (
        start is not None
        and token
        and place >= 0
        and text[:place] == full[:place]
        and text[end:] == rest
        and text.endswith(token, start, end)
        and text.count(token, start, end) == 1
    )
    if not proven or start is None:
        raise DataError(
            f"cannot tell which part of the rendered text is the call in the assistant's turn {index + 1}. Mark the turn "
            'with "train": false, or give each turn as a row of its own'
        )
    _check_parts(messages[index], text[start:end], index)
    return start, end


def _probed(message: Message) -> tuple[Message, list[str]]:
    """The turn with probes in the place of all that it says, and the probes; those of one call stand together."""
    calls = json.loads(message.tool_calls)
    said = f"{PROBE}-said-" if message.content else ""
    probes = [said] if said else []
    for number, call in enumerate(calls):
        name, key, value = (f"{PROBE}-{part}-{number}-" for part in ("name", "key", "value"))
        call["function"] = {"name": name, "arguments": {key: value}}
        probes += [name, key, value]
    return attrs.evolve(message, content=said, tool_calls=json.dumps(calls)), probes


def _check_written(text: str, probes: Sequence[str], index: int) -> tuple[int, int]:
    """From where to where the probes stand in ``text``: each once, and call after call."""
    places = [text.find(probe) for probe in probes]
    of_calls = places[len(places) % 3 :]
    calls = [of_calls[start : start + 3] for start in range(0, len(of_calls), 3)]
    apart = all(max(one) < min(other) for one, other in pairwise(calls))
    if min(places) < 0 or not apart or any(text.count(probe) != 1 for probe in probes):
        raise DataError(
            f"the chat template does not write what the assistant calls in turn {index + 1}: the call would be lost. Use a "
            "base whose template takes tool calls, or rows without them"
        )
    return min(places), max(place + len(probe) for place, probe in zip(places, probes, strict=True))


def _check_parts(message: Message, body: str, index: int) -> None:
    """Whether the content and each name, key and value of the calls stand in ``body``."""
    bare = _bare(body)
    for call in json.loads(message.tool_calls):
        parts = [call["function"]["name"], *leaves(call["function"]["arguments"])]
        lost = next((part for part in parts if not any(form in bare for form in _forms(part))), None)
        if lost is not None:
            raise DataError(
                f"the chat template does not write {lost!r} of the call in the assistant's turn {index + 1}"
            )
    if "".join(message.content.split()) not in bare:
        raise DataError(f"the chat template does not write what is said beside the call in turn {index + 1}")


def leaves(value: Any) -> Iterator[Any]:
    """Every key and every single value in nested JSON."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield from one
            left += reversed(one.values())
        elif isinstance(one, list):
            left += reversed(one)
        else:
            yield one


def _forms(value: Any) -> list[str]:
    """How a template may write a value, without whitespace: as it is, as JSON or as Python has it."""
    texts = [value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]]
    if not isinstance(value, str):
        texts = [json.dumps(value), str(value)]
    return [_bare(text) for text in texts]


def _bare(text: str) -> str:
    return "".join(text.split())


def _names(tools: list[Any]) -> Iterator[str]:
    for index, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(f"tools[{index}] has no name")
        yield function["name"]
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        yield from properties if isinstance(properties, dict) else ()
