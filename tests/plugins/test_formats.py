"""What each bundled format makes of a row, and why it refuses one."""

import json
import re

import pytest

import adapterkit_formats
from adapterkit import Conversation, Message, Registry, Text

FORMATS = {one.name: one for one in adapterkit_formats.adapterkit_formats()}


def ask(content):
    return Message("user", content)


def answer(content, *, train=True):
    return Message("assistant", content, train=train)


def turn(role, content, **extra):
    return {"role": role, "content": content, **extra}


TALK = [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b")]
TRAINED = (ask("q"), answer("a"), ask("r"), answer("b"))


def convert(name, row):
    return FORMATS[name].convert(row)


def test_the_bundled_formats_are_found_and_asked_in_order():
    names = [one.name for one in Registry().formats()]
    bundled = [name for name in names if name in FORMATS]
    assert bundled == [
        *("preference", "judged", "messages", "sharegpt", "segments", "prompt-completion", "alpaca", "text"),
    ]


@pytest.mark.parametrize("name", ["completion", "response", "text"])
def test_a_prompt_and_its_completion(name):
    assert convert("prompt-completion", {"prompt": " q\n", name: "a "}) == Conversation((ask(" q\n"), answer("a ")))


def test_a_completion_goes_before_a_text_that_repeats_it():
    row = {"prompt": "q", "completion": "a", "text": "q a"}
    assert convert("prompt-completion", row) == Conversation((ask("q"), answer("a")))


def test_a_prompt_and_completion_of_turns_trains_only_the_completion():
    row = {"prompt": TALK[:3], "completion": TALK[3:]}
    assert convert("prompt-completion", row) == Conversation(
        (ask("q"), answer("a", train=False), ask("r"), answer("b"))
    )


def test_a_prompt_that_only_begins_like_a_list_is_a_text():
    row = {"prompt": "[INFO] what is it?", "completion": "[x]"}
    assert convert("prompt-completion", row) == Conversation((ask("[INFO] what is it?"), answer("[x]")))


@pytest.mark.parametrize("given", [TALK, json.dumps(TALK)])
def test_messages_train_every_answer(given):
    assert convert("messages", {"messages": given}) == Conversation(TRAINED)


def test_messages_may_leave_answers_out_of_the_loss():
    row = {"messages": [*TALK[:1], turn("assistant", "a", train=False), *TALK[2:3], turn("assistant", "b", weight=1)]}
    assert [message.train for message in convert("messages", row).messages] == [False, False, False, True]


def test_contents_in_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {"messages": [turn("user", "q"), turn("assistant", parts)]}
    assert convert("messages", row) == Conversation((ask("q"), answer("ab")))


@pytest.mark.parametrize(("human", "bot"), [("human", "gpt"), ("user", "assistant"), ("human", "model")])
def test_sharegpt(human, bot):
    row = {"conversations": [{"from": human, "value": "q"}, {"from": bot, "value": "a"}], "system": "s"}
    assert convert("sharegpt", row) == Conversation((Message("system", "s"), ask("q"), answer("a")))


@pytest.mark.parametrize(("given", "asked"), [("", "i"), (None, "i"), ("x", "i\n\nx")])
def test_alpaca(given, asked):
    row = {"instruction": "i", "input": given, "output": "o"}
    assert convert("alpaca", row) == Conversation((ask(asked), answer("o")))


def test_raw_text():
    assert convert("text", {"text": " t\n"}) == Text(" t\n")


@pytest.mark.parametrize("name", ["prompt-completion", "alpaca", "messages"])
@pytest.mark.parametrize(("system", "count"), [("s", 3), ("", 2), (None, 2), ("  ", 2)])
def test_an_optional_system_column_speaks_first(name, system, count):
    row = {"prompt": "q", "completion": "a", "instruction": "q", "output": "a", "messages": TALK[:2], "system": system}
    assert len(convert(name, row).messages) == count


@pytest.mark.parametrize(
    ("name", "row", "part"),
    [
        ("prompt-completion", {"prompt": "q", "completion": None}, "completion is missing"),
        ("prompt-completion", {"prompt": "q", "completion": " \n"}, "completion is empty"),
        ("prompt-completion", {"prompt": "", "completion": "a"}, "prompt is empty"),
        ("prompt-completion", {"prompt": TALK[:1], "completion": TALK[:1]}, "only turns of the assistant"),
        ("alpaca", {"instruction": "i", "output": ""}, "output is empty"),
        ("alpaca", {"instruction": "i", "output": "o", "input": ["x"]}, "input must be text, not list"),
        ("text", {"text": ""}, "text is empty"),
        ("messages", {"messages": []}, "must be a list of turns"),
        ("messages", {"messages": "[{'role': 'user'}]"}, "not JSON"),
        ("messages", {"messages": TALK[:1]}, "no turn of the assistant"),
        ("messages", {"messages": [turn("user", "q"), turn("assistant", "a", train=False)]}, "marked as not trained"),
        ("messages", {"messages": [turn("usr", "q")]}, "messages[0] has the unknown role 'usr'; known: system, user"),
        ("messages", {"messages": [turn("user", "q"), turn("assistant", None)]}, "content of messages[1] is missing"),
        ("messages", {"messages": [*TALK, turn("system", "s")]}, "system speaks in turn 5"),
        ("messages", {"messages": ["q"]}, "messages[0] must be an object"),
        ("messages", {"messages": [turn("assistant", "", tool_calls=[1])]}, "messages[0].tool_calls[0] is not a call"),
        ("messages", {"messages": [turn("user", [{"type": "image"}])]}, "parts that are not text"),
        ("messages", {"messages": TALK, "system": 5}, "system must be text"),
        ("sharegpt", {"conversations": [{"from": "human"}]}, "is missing"),
    ],
)
def test_why_a_row_is_refused(name, row, part):
    with pytest.raises(ValueError, match=re.escape(part)):
        convert(name, row)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("messages", {"messages": "just a text"}),
        ("messages", {"messages": []}),
        ("sharegpt", {"conversations": None}),
        ("prompt-completion", {"prompt": "q"}),
        ("alpaca", {"instruction": "q"}),
        ("text", {"text": "t", "label": "x"}),
    ],
)
def test_shapes_that_are_not_a_formats(name, row):
    assert not FORMATS[name].matches(row)
