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


CALL = {"type": "function", "function": {"name": "look", "arguments": {"b": 1, "a": [2, None]}}}
LOOK = {"name": "look", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}


def calls(*given):
    return Message("assistant", "", train=True, tool_calls=json.dumps(list(given)))


@pytest.mark.parametrize(
    "tools", [[LOOK], json.dumps([LOOK]), [json.dumps(LOOK)], [{"type": "function", "function": LOOK}]]
)
@pytest.mark.parametrize("name", ["messages", "sharegpt", "prompt-completion", "alpaca"])
def test_tools_come_as_a_list_or_its_text_bare_or_not(name, tools):
    row = {"messages": TALK, "conversations": TALK, "prompt": "q", "completion": "a", "instruction": "q", "output": "a"}
    record = convert(name, {**row, "tools": tools})
    assert json.loads(record.tools) == [{"type": "function", "function": LOOK}]
    for nothing in ([], "[]", "", None):
        assert convert(name, {**row, "tools": nothing}).tools == ""


@pytest.mark.parametrize(
    "turns",
    [
        [turn("assistant", None, tool_calls=[CALL])],
        [turn("assistant", "", tool_calls=json.dumps([CALL]))],
        [
            turn(
                "assistant",
                "",
                tool_calls=[{"function": {**CALL["function"], "arguments": '{"b": 1, "a": [2, null]}'}}],
            )
        ],
        [turn("assistant", "", tool_calls=[CALL["function"]])],
        [turn("assistant", "", function_call=CALL["function"])],
        [{"from": "function_call", "value": json.dumps(CALL["function"])}],
        [{"from": "function_call", "value": json.dumps([CALL["function"]])}],
    ],
)
def test_calls_of_every_layout_are_the_same(turns):
    record = convert("messages", {"messages": [turn("user", "q"), *turns]})
    assert record.messages[1] == calls(CALL)
    assert '{"b": 1, "a"' in record.messages[1].tool_calls  # in the order in which the model is to write them


@pytest.mark.parametrize("arguments", [None, "", {}, "{}"])
def test_calls_without_arguments(arguments):
    row = {
        "messages": [turn("user", "q"), turn("assistant", "", tool_calls=[{"name": "look", "arguments": arguments}])]
    }
    assert json.loads(convert("messages", row).messages[1].tool_calls)[0]["function"] == {
        "name": "look",
        "arguments": {},
    }


@pytest.mark.parametrize("role", ["tool", "observation", "function", "tool_response"])
def test_what_tools_answer(role):
    said = [{"sky": "clear"}, '{"sky": "clear"}', [{"type": "text", "text": '{"sky": "clear"}'}]]
    for content in said:
        row = {
            "messages": [turn("user", "q"), turn(role, content, name="look", tool_call_id="x"), turn("assistant", "a")]
        }
        assert convert("messages", row).messages[1] == Message(
            "tool", '{"sky": "clear"}', name="look", tool_call_id="x"
        )
    empty = {"messages": [turn("user", "q"), turn(role, ""), turn("assistant", "a")]}
    assert convert("messages", empty).messages[1] == Message("tool", "")


def test_an_id_of_a_call_is_kept():
    row = {"messages": [turn("user", "q"), turn("assistant", "", tool_calls=[{"id": "c1", **CALL}])]}
    assert json.loads(convert("messages", row).messages[1].tool_calls)[0]["id"] == "c1"


def test_weights_of_turns():
    said = [
        turn("assistant", "a", weight=0.5),
        turn("assistant", "b", weight=2),
        turn("assistant", "c", training=False),
    ]
    messages = convert("messages", {"messages": [turn("user", "q", weight=3), *said]}).messages
    assert [(message.train, message.weight) for message in messages] == [(False, 1), (True, 0.5), (True, 2), (False, 1)]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_beside_a_content_go_before_it(name):
    row = {"messages": [turn("user", "q"), turn("assistant", "a", **{name: "hm"})]}
    assert convert("messages", row).messages[1] == answer("<think>\nhm\n</think>\n\na")
    row["messages"][1]["content"] = "<think>so</think>a"
    assert convert("messages", row).messages[1] == answer("<think>so</think>a")


def test_an_implicit_prompt_ends_with_a_whole_word():
    row = {"chosen": "It is blue today", "rejected": "It is black today"}
    record = convert("preference", row)
    assert record.prompt == (ask("It is"),)
    assert record.chosen == (answer(" blue today"),)
    assert record.rejected == (answer(" black today"),)


def test_adjoining_segments_are_trained_each():
    parts = [("a", True), ("b", True), ("", True), ("c", False)]
    row = {"segments": [{"text": text, "label": label} for text, label in parts]}
    assert convert("segments", row) == Text("abc", ((0, 1), (1, 2)))


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
        ("messages", {"messages": TALK, "tools": "{"}, "tools is text that is not JSON"),
        ("messages", {"messages": TALK, "tools": {"a": 1}}, "tools must be a list of JSON schemas"),
        ("messages", {"messages": TALK, "tools": [5]}, "tools[0] is not a JSON schema with a name"),
        (
            "messages",
            {"messages": [turn("assistant", "", tool_calls=5)]},
            "messages[0].tool_calls must be a list of calls",
        ),
        (
            "messages",
            {"messages": [turn("assistant", "", tool_calls=[{"name": "f", "arguments": [1]}])]},
            "the arguments of messages[0].tool_calls[0] must be an object, not [1]",
        ),
        ("sharegpt", {"conversations": [{"from": "function_call", "value": "f()"}]}, "not JSON (Expecting value"),
        (
            "messages",
            {"messages": [turn("assistant", "a", train="no")]},
            '"train" of messages[0] must be true or false',
        ),
        ("messages", {"messages": [turn("assistant", "a", weight=-1)]}, '"weight" of messages[0] must be a number'),
        ("messages", {"messages": [turn("assistant", "a", train_detail=[{}])]}, "only whole turns are trained"),
        ("alpaca", {"instruction": "i", "output": "o", "history": [["q"]]}, "pairs of question and answer"),
        ("alpaca", {"instruction": "i", "output": "o", "history": [["q", ""]]}, "history[0][1] is empty"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "a"}, "are the same"),
        ("preference", {"chosen": TALK, "rejected": TALK}, "must differ in an answer"),
        ("preference", {"chosen": "Yes", "rejected": "No"}, "do not begin with the same prompt"),
        ("preference", {"chosen": "a b", "rejected": "a c", "question": "q"}, "has no prompt; it has 'question'"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": ""}, "rejected is empty"),
        ("judged", {"prompt": "q", "completion": "a", "label": "good"}, "label must be true or false, not 'good'"),
        ("judged", {"prompt": "q", "label": "true"}, "has a label, but no messages"),
        ("segments", {"segments": [{"text": "a", "label": False}]}, "nothing to train"),
        ("segments", {"segments": [{"text": "a", "label": 1}]}, "segments[0] must have a label"),
        ("segments", {"segments": [{"text": None, "label": True}]}, "segments[0] must have a text"),
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
        ("judged", {"prompt": "q", "completion": "a", "label": "good"}),
        ("judged", {"prompt": "q", "label": "true"}),
        ("preference", {"prompt": "q", "chosen": "a"}),
        ("segments", {"segments": []}),
    ],
)
def test_shapes_that_are_not_a_formats(name, row):
    assert not FORMATS[name].matches(row)
