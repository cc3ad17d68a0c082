"""Tools and calls of tools, in the layouts that rows have them in, as transformers' chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["read_calls", "read_tools"]


def read_tools(row: Mapping[str, Any]) -> str:
    """The tools of the optional column ``tools`` as JSON text; empty when there are none.

    They come as a list of JSON schemas or as its JSON text, each bare, ``{"name": …, "parameters": …}``, or as OpenAI has it,
    ``{"type": "function", "function": …}``, which is what they become.
    """
    tools = _parsed(row.get("tools"), "tools")
    if tools in (None, "", [], ()):
        return ""
    if not isinstance(tools, (list, tuple)):
        raise ValueError(f"tools must be a list of JSON schemas, not {tools!r:.60}")  # noqa: TRY004 - formats raise ValueError
    return json.dumps([_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)], ensure_ascii=False)


def read_calls(calls: Any, what: str) -> str:
    """Calls of tools as JSON text; empty when there are none.

    They come as a list or a single one, or as JSON text of either, each bare, ``{"name": …, "arguments": …}``, or as OpenAI has
    it, ``{"id": …, "type": "function", "function": …}``; arguments as an object or as its JSON text.
    """
    calls = _parsed(calls, what)
    if calls in (None, "", [], ()):
        return ""
    if isinstance(calls, Mapping):
        calls = [calls]
    if not isinstance(calls, (list, tuple)):
        raise ValueError(f"{what} must be a list of calls, not {calls!r:.60}")  # noqa: TRY004 - formats raise ValueError
    return json.dumps([_call(call, f"{what}[{index}]") for index, call in enumerate(calls)], ensure_ascii=False)


def _tool(tool: Any, what: str) -> dict[str, Any]:
    tool = _parsed(tool, what)
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    _check_name(function, what, "a JSON schema")
    return dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}


def _call(call: Any, what: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = _check_name(function, what, "a call")
    arguments = _parsed(function.get("arguments"), f"the arguments of {what}") if function else None
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {what} must be an object, not {arguments!r:.60}")  # noqa: TRY004
    named = {"id": call["id"]} if call.get("id") else {}
    return {**named, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def _check_name(function: Any, what: str, kind: str) -> str:
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} is not {kind} with a name: {function!r:.60}")
    return name


def _parsed(value: Any, what: str) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value if not isinstance(value, str) else None
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is text that is not JSON ({error.msg} at column {error.colno})") from error
