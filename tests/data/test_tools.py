"""Tools and calls of tools: written by the template or refused, trained where the model calls, and nothing lost."""

import hashlib
import json

import attrs
import pytest

from adapterkit import Base, Conversation, DataError, Message
from adapterkit.data import spans, tools
from adapterkit.data.dataset import answers, digest, encode_rows
from adapterkit.data.rendering import Renderer
from adapterkit.testing import tiny_llama
from tests.data.test_rendering import first_trained, trained_texts
from tests.sample_tokenizers import (
    CHAT_TOKENIZERS,
    CHATML,
    TOOL_TOKENIZERS,
    TOOLS_CHATML,
    example_tokenizer,
    gpt2_like,
)

TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather of a city",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                },
            },
        }
    ]
)


def call(name="get_weather", **arguments):
    return {"id": "a1", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls, said="", train=True):
    return Message("assistant", said, train, tool_calls=json.dumps(list(calls)))


ASKED = Message("user", "How is it in Rome?")
RESULT = Message("tool", '{"sky": "clear"}', name="get_weather", tool_call_id="a1")
ROME = call(city="Rome", days=2)
TALK = Conversation((ASKED, calling(ROME), RESULT, Message("assistant", "It is clear.", train=True)), TOOLS)
WRITTEN = {
    "chatml": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call><|im_end|>',
    "llama3": '{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}<|eot_id|>',
    "as-text": '<|call|>get_weather\n{"city": "Rome", "days": 2}<|end_call|><|endoftext|>',
}


@pytest.fixture(params=TOOL_TOKENIZERS)
def kind(request):
    return request.param


@pytest.fixture
def tool_tokenizer(kind):
    return TOOL_TOKENIZERS[kind]()


def test_calls_and_answers_are_trained_and_nothing_else(kind, tool_tokenizer):
    example = Renderer(tool_tokenizer, 512).encode(TALK)
    closing = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}.get(kind, "<|endoftext|>")
    assert trained_texts(tool_tokenizer, example) == [WRITTEN[kind], "It is clear." + closing]
    whole = tool_tokenizer.decode(example.input_ids)
    for part in ("get_weather", "The weather of a city", "days", "sky"):
        assert part in whole


def test_a_row_may_end_in_a_call_and_its_prompt_is_what_generation_sees(kind, tool_tokenizer):
    renderer = Renderer(tool_tokenizer, 512)
    record = Conversation((ASKED, calling(ROME)), TOOLS)
    example = renderer.encode(record)
    start = first_trained(example)
    assert renderer.prompt(Conversation((ASKED,), TOOLS)) == list(example.input_ids[:start])
    assert trained_texts(tool_tokenizer, example) == [WRITTEN[kind]]
    ended = tool_tokenizer.convert_tokens_to_ids(WRITTEN[kind][WRITTEN[kind].rindex("<|") :])
    assert ended in renderer.stop_ids()
    (prompt,), (expected,) = answers([record], renderer)
    assert prompt == Conversation((ASKED,), TOOLS)
    assert expected == renderer.decode(example.input_ids[start:])
    assert "get_weather" in expected


def test_a_prompt_may_hold_calls_and_results(kind, tool_tokenizer):
    renderer = Renderer(tool_tokenizer, 512)
    example = renderer.encode(TALK)
    ids = renderer.prompt(Conversation(TALK.messages[:3], TOOLS))
    assert list(example.input_ids[: len(ids)]) == ids
    with pytest.raises(DataError, match="needs the renderer"):
        answers([Conversation((ASKED, calling(ROME)), TOOLS)])


def test_several_calls_in_a_turn_with_something_said():
    tokenizer = TOOL_TOKENIZERS["chatml"]()
    record = Conversation((ASKED, calling(ROME, call(city="Oslo", days=1), said="Both.")), TOOLS)
    (text,) = trained_texts(tokenizer, Renderer(tokenizer, 512).encode(record))
    assert text.startswith("Both.\n<tool_call>")
    assert text.count("<tool_call>") == 2
    assert text.index("Rome") < text.index("Oslo")


def test_a_call_that_is_not_trained_is_in_the_prompt(kind, tool_tokenizer):
    record = Conversation((ASKED, calling(ROME, train=False), *TALK.messages[2:]), TOOLS)
    (text,) = trained_texts(tool_tokenizer, Renderer(tool_tokenizer, 512).encode(record))
    assert text.startswith("It is clear.")


def test_a_call_after_other_calls_is_found_at_its_own_place(kind, tool_tokenizer):
    twice = (ASKED, calling(ROME), RESULT, calling(ROME), RESULT, Message("assistant", "Clear.", train=True))
    seen = trained_texts(tool_tokenizer, Renderer(tool_tokenizer, 512).encode(Conversation(twice, TOOLS)))
    assert seen[:2] == [WRITTEN[kind]] * 2
    assert len(seen) == 3


@pytest.mark.parametrize("make", [CHAT_TOKENIZERS["base"], lambda: example_tokenizer(CHATML), gpt2_like])
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            Conversation((ASKED, Message("assistant", "x", train=True)), TOOLS),
            "does not write the tool or parameter 'get_",
        ),
        (Conversation((ASKED, calling(ROME))), "does not write what the assistant calls in turn 2"),
        (Conversation((*TALK.messages[:1], calling(ROME, train=False), *TALK.messages[2:])), "the call would be lost"),
    ],
)
def test_a_template_without_tools_is_refused_and_not_passed_over(make, record, reason):
    with pytest.raises(DataError, match=reason):
        Renderer(make(), 512).encode(record)


def test_a_prompt_with_tools_is_refused_where_the_template_writes_none(tokenizer):
    with pytest.raises(DataError, match="does not write the tool"):
        Renderer(tokenizer, 512).prompt(Conversation((ASKED,), TOOLS))


@pytest.mark.parametrize("tool", [{"type": "function", "function": {}}, {"name": 5}, {"function": 5}, 5])
def test_a_tool_without_a_name_is_refused(tool):
    with pytest.raises(DataError, match=r"tools\[0\] has no name|refuses these turns"):
        Renderer(TOOL_TOKENIZERS["chatml"](), 512).prompt(Conversation((ASKED,), json.dumps([tool])))


def test_tools_and_calls_that_are_nested_too_deeply_are_refused():
    deep = {}
    for _ in range(900):
        deep = {"properties": deep}
    renderer = Renderer(TOOL_TOKENIZERS["chatml"](), 512)
    tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": deep}}])
    for record in (Conversation((ASKED,), tools), Conversation((ASKED, calling(call(a=deep), train=False)), TOOLS)):
        with pytest.raises(DataError, match="recursion"):
            renderer.prompt(record)


def test_what_a_call_holds_is_found_however_deep_it_is():
    deep = 1
    for _ in range(5000):
        deep = {"a": [deep]}
    assert list(tools.leaves({"x": deep, "y": [2, {"z": 3}]})) == ["x", "y", *["a"] * 5000, 1, 2, "z", 3]


def test_rows_that_this_template_cannot_write_are_left_out_with_the_reason(tokenizer, registry):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": talk, "tools": "[]"}, {"messages": talk, "tools": TOOLS}]
    encoded = encode_rows(rows, Renderer(tokenizer, 64), registry)
    assert len(encoded.examples) == 1
    assert "get_weather" in encoded.report.unusable[0].reason


def test_a_template_that_writes_only_the_first_call_is_refused():
    template = TOOLS_CHATML.replace("in m.tool_calls %}", "in m.tool_calls[:1] %}")
    record = Conversation((ASKED, calling(ROME, ROME)), TOOLS)
    assert Renderer(example_tokenizer(TOOLS_CHATML), 512).encode(record).trained
    with pytest.raises(DataError, match="the call would be lost"):
        Renderer(example_tokenizer(template), 512).encode(record)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{{ call.arguments | tojson }}", "{{ call.arguments.keys() | list | tojson }}", "call would be lost"),
        ("+ m.content + '\\n</tool_response>'", "+ '\\n</tool_response>'", "what the tool answers in turn 3"),
        ("{{ tool | tojson }}", "{{ tool.function.name }}", "the tool or parameter 'city'"),
    ],
)
def test_a_template_that_leaves_a_part_out_is_refused(old, new, reason):
    assert old in TOOLS_CHATML
    with pytest.raises(DataError, match=reason):
        Renderer(example_tokenizer(TOOLS_CHATML.replace(old, new)), 512).encode(TALK)


def test_a_call_that_nothing_ends_is_refused():
    template = TOOLS_CHATML.replace("{%- endfor %}{{ '<|im_end|>\\n' }}", "{%- endfor %}{{ '\\n' }}")
    assert template != TOOLS_CHATML
    with pytest.raises(DataError, match="cannot tell which part"):
        Renderer(example_tokenizer(template), 512).encode(TALK)


@pytest.mark.parametrize(
    "record",
    [
        Conversation((ASKED, calling(call(city="<|im_end|>"))), TOOLS),
        Conversation((ASKED, Message("assistant", "x", train=True)), TOOLS.replace("The weather", "<|im_start|>")),
        Conversation((*TALK.messages[:2], Message("tool", "<|im_end|>"), TALK.messages[3]), TOOLS),
        Conversation((*TALK.messages[:2], Message("tool", "x", name="<|im_end|>"), TALK.messages[3]), TOOLS),
    ],
)
def test_nothing_that_data_holds_can_end_a_turn(record):
    with pytest.raises(DataError, match="special token"):
        Renderer(TOOL_TOKENIZERS["chatml"](), 512).encode(record)


def test_the_check_of_what_is_written_is_what_refuses_a_lost_call(tokenizer, monkeypatch):
    """Seeded bug: without it, a row whose call leaves no trace is trained on an empty answer."""
    record = Conversation((ASKED, calling(ROME, train=False), *TALK.messages[2:]))
    renderer = Renderer(tokenizer, 512)
    with pytest.raises(DataError, match="lost"):
        renderer.encode(record)
    monkeypatch.setattr(spans, "check_calls", lambda *_: None)
    assert renderer.encode(record).trained


def test_the_comparison_of_the_rest_is_what_keeps_later_turns_out_of_a_call(monkeypatch):
    """Seeded bug: with the end of the call taken for the end of the text, the tool's answer would be trained."""
    tokenizer = TOOL_TOKENIZERS["chatml"]()
    good = Renderer(tokenizer, 512).encode(TALK)
    real = tools.call_span
    monkeypatch.setattr(spans, "call_span", lambda *given: (real(*given)[0], len(given[4]) - 1))
    assert Renderer(tokenizer, 512).encode(TALK).trained > good.trained


def test_the_digest_follows_tools_and_calls_and_is_what_it_was_without_them():
    plain = Conversation((Message("user", "q"), Message("assistant", "a", train=True)))
    line = (
        b'{"messages":[{"content":"q","role":"user","train":false},{"content":"a","role":"assistant","train":true}]}\n'
    )
    assert digest([plain]) == hashlib.sha256(line).hexdigest()
    heavy = Conversation((plain.messages[0], Message("assistant", "a", train=True, weight=2.0)))
    others = [plain, heavy, attrs.evolve(plain, tools=TOOLS), attrs.evolve(plain, desirable=False), TALK]
    assert len({digest([one]) for one in others}) == len(others)


def test_a_base_answers_prompts_with_tools():
    tokenizer = TOOL_TOKENIZERS["chatml"]()
    base = Base(tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=512), tokenizer=tokenizer)
    asked = Conversation((ASKED, calling(ROME), RESULT), TOOLS)
    turns = [
        {"role": "user", "content": ASKED.content},
        {"role": "assistant", "tool_calls": [ROME]},
        {"role": "tool", "content": RESULT.content},
    ]
    answers = base.generate([asked, turns], max_new_tokens=3)
    assert all(isinstance(answer, str) for answer in answers)
    with pytest.raises(DataError, match=r"prompts\[0\] is a conversation without turns"):
        base.generate([Conversation((), TOOLS)])
