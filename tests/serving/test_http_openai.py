"""The unmodified ``openai`` client against a server with a real engine."""

import asyncio
import json

import openai
import pytest

from .http_server import engine_of, listening

ASKED = [{"role": "user", "content": "Which card was lost?"}]


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base, max_length=256) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine):
    with listening(engine) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["base", "cards", "tone", "cards+tone", "cards*0.7+tone*-0.3"])
def test_a_chat_is_what_the_engine_answers(client, engine, model):
    answer = client.chat.completions.create(model=model, messages=ASKED, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content == engine.generate([ASKED], model=model, max_new_tokens=12)[0]
    assert answer.choices[0].message.role == "assistant"
    assert answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_each_adapter_answers_as_itself(client):
    asked = {"messages": ASKED, "max_tokens": 12, "temperature": 0}
    said = {
        client.chat.completions.create(model=model, **asked).choices[0].message.content
        for model in ("base", "cards", "tone")
    }
    assert len(said) == 3


@pytest.mark.parametrize("model", ["base", "cards"])
def test_a_stream_is_the_whole_answer(client, model):
    asked = {"model": model, "messages": ASKED, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == whole.choices[0].message.content
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_tells_usage_only_when_asked(client):
    asked = {"model": "cards", "messages": ASKED, "max_tokens": 3, "temperature": 0}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_completion_goes_on_from_the_text_as_it_is(client, engine):
    from adapterkit import Text

    answer = client.completions.create(model="cards", prompt="The card", max_tokens=8, temperature=0)
    assert answer.choices[0].text == engine.generate(Text("The card"), model="cards", max_new_tokens=8)
    streamed = client.completions.create(model="cards", prompt="The card", max_tokens=8, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


def test_a_completion_takes_several_prompts_and_token_ids(client, engine, example_base):
    ids = [example_base.tokenizer(text)["input_ids"] for text in ("The card", "My money")]
    asked = {"model": "cards", "max_tokens": 5, "temperature": 0}
    texts = client.completions.create(prompt=["The card", "My money"], **asked)
    tokens = client.completions.create(prompt=ids, **asked)
    one = client.completions.create(prompt=ids[0], **asked)
    assert [choice.index for choice in texts.choices] == [0, 1]
    assert [choice.text for choice in texts.choices] == [choice.text for choice in tokens.choices]
    assert one.choices[0].text == texts.choices[0].text
    assert texts.usage.prompt_tokens == sum(map(len, ids))


def test_seeds_repeat_and_each_of_n_has_its_own(client):
    asked = {"model": "cards", "messages": ASKED, "max_tokens": 12, "n": 3}
    first = client.chat.completions.create(**asked, seed=5)
    again = client.chat.completions.create(**asked, seed=5)
    said = [choice.message.content for choice in first.choices]
    assert said == [choice.message.content for choice in again.choices]
    assert len(set(said)) > 1
    other = client.chat.completions.create(**{**asked, "n": 1}, seed=6)
    assert other.choices[0].message.content == said[1]
    assert first.usage.prompt_tokens == other.usage.prompt_tokens


def test_a_seed_is_any_signed_integer_of_64_bits(client):
    asked = {"model": "cards", "messages": ASKED, "max_tokens": 12, "n": 3}
    said = [
        [choice.message.content for choice in client.chat.completions.create(**asked, seed=seed).choices]
        for seed in (-1, -1, -(2**63), 2**63 - 1)
    ]
    assert said[0] == said[1]
    assert said[0] != said[2]
    assert said[0] == said[3]


def test_the_best_of_as_many_as_are_asked_for_are_all(client):
    asked = {"model": "cards", "prompt": "The card", "max_tokens": 2}
    assert len(client.completions.create(**asked, n=3, best_of=3).choices) == 3
    assert len(client.completions.create(**asked, best_of=1).choices) == 1
    with pytest.raises(openai.BadRequestError, match="best_of"):
        client.completions.create(**asked, n=2, best_of=3)


def test_each_answer_has_an_id_of_its_own(client):
    asked = {"model": "cards", "messages": ASKED, "max_tokens": 1, "extra_headers": {"x-request-id": "job-17"}}
    raw = [client.chat.completions.with_raw_response.create(**asked) for _ in range(2)]
    assert {one.headers["x-request-id"] for one in raw} == {"job-17"}
    ids = {one.parse().id for one in raw}
    assert len(ids) == 2
    assert all(one.startswith("chatcmpl-job-17-") for one in ids)


def test_n_answers_stream_side_by_side(client):
    asked = {"model": "cards", "messages": ASKED, "max_tokens": 6, "n": 3, "seed": 1}
    whole = client.chat.completions.create(**asked)
    said = ["", "", ""]
    ends = {}
    for chunk in client.chat.completions.create(**asked, stream=True):
        choice = chunk.choices[0]
        said[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert said == [choice.message.content for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(client):
    asked = {"model": "cards", "prompt": "The card", "temperature": 0}
    text = client.completions.create(**asked, max_tokens=12).choices[0].text
    stop = text.split()[2]
    answer = client.completions.create(**asked, max_tokens=12, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_logprobs_of_a_chat(client):
    asked = {
        "model": "cards",
        "messages": ASKED,
        "max_tokens": 4,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 3,
    }
    answer = client.chat.completions.create(**asked)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens)  # greedy: the likeliest was taken
    streamed = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**asked, stream=True)]
    assert [token.token for one in streamed if one for token in one.content] == [token.token for token in tokens]


def test_logprobs_of_a_completion(client):
    answer = client.completions.create(model="cards", prompt="The card", max_tokens=4, temperature=0, logprobs=2)
    said = answer.choices[0].logprobs
    assert len(said.tokens) == len(said.token_logprobs) == len(said.text_offset) == 4
    assert all(token in top for token, top in zip(said.tokens, said.top_logprobs, strict=True))
    bare = client.completions.create(model="cards", prompt="The card", max_tokens=4, temperature=0)
    assert bare.choices[0].logprobs is None


LOST = {
    "type": "object",
    "properties": {"lost": {"type": "boolean"}, "card": {"enum": ["debit", "credit"]}},
    "required": ["lost", "card"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_answer_fits_a_json_schema(client, seed, stream):
    wanted = {"type": "json_schema", "json_schema": {"name": "card", "schema": LOST, "strict": True}}
    asked = {"model": "cards", "messages": ASKED, "max_tokens": 200, "seed": seed, "response_format": wanted}
    if stream:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
        text, reason = "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        text, reason = choice.message.content, choice.finish_reason
    said = json.loads(text)
    assert isinstance(said.pop("lost"), bool)
    assert said in ({"card": "debit"}, {"card": "credit"})
    assert reason == "stop"


def test_an_answer_that_is_too_long_for_its_schema_is_its_beginning(client):
    wanted = {"type": "json_schema", "json_schema": {"name": "card", "schema": LOST, "strict": True}}
    answer = client.chat.completions.create(model="cards", messages=ASKED, max_tokens=2, response_format=wanted)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content.lstrip().startswith("{")


def test_models(client):
    assert [model.id for model in client.models.list()] == ["base", "cards", "tone"]
    assert client.models.retrieve("cards").owned_by == "adapterkit"
    assert client.models.retrieve("cards+tone").id == "cards+tone"
    with pytest.raises(openai.NotFoundError, match="no adapter 'other'"):
        client.models.retrieve("other")


def test_each_answer_says_which_digest_made_it(client, engine):
    digests = {one.name: one.digest for one in engine.catalogue.listed()}
    raw = client.chat.completions.with_raw_response.create(model="cards", messages=ASKED, max_tokens=2)
    assert raw.headers["x-adapterkit-digest"] == digests["cards"]
    assert raw.parse().system_fingerprint == digests["cards"][:12]
    raw = client.completions.with_raw_response.create(model="base", prompt="x", max_tokens=2)
    assert raw.headers["x-adapterkit-digest"] == engine.base.reference.fingerprint


def test_a_prompt_that_was_read_before_is_counted_as_cached(client):
    asked = {"model": "tone", "messages": [{"role": "user", "content": "one two three " * 20}], "max_tokens": 2}
    client.chat.completions.create(**asked)
    again = client.chat.completions.create(**asked)
    assert again.usage.prompt_tokens_details.cached_tokens > 0


def test_an_unknown_model_is_no_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="card", messages=ASKED)
    assert caught.value.code == "model_not_found"
    assert "did you mean 'cards'" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"logit_bias": {"5": 10}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"extra_body": {"best_of": 2}}, "best_of"),
        ({"extra_body": {"best_of": True}}, "best_of"),
        ({"seed": 2**63}, "seed"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 2}, None),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"response_format": {"type": "json_schema"}}, None),
        ({"max_tokens": 100_000}, None),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, given, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "cards", "messages": ASKED, **given})
    assert caught.value.type == "invalid_request_error"
    assert (caught.value.param or "").startswith(param or "")


def test_what_changes_nothing_is_taken(client):
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "logit_bias": {},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
    }
    client.chat.completions.create(model="cards", messages=ASKED, max_tokens=1, **harmless)


def test_an_answer_can_be_sent_back(client):
    answer = client.chat.completions.create(model="cards", messages=ASKED, max_tokens=3)
    turns = [
        *ASKED,
        answer.choices[0].message.model_dump(),
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
    ]
    assert client.chat.completions.create(model="cards", messages=turns, max_tokens=2).choices


def test_tools_that_the_template_does_not_show_are_refused(client, example_base):
    tool = {"type": "function", "function": {"name": "block_card", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(openai.BadRequestError, match="block_card"):
        client.chat.completions.create(model="cards", messages=ASKED, tools=[tool], max_tokens=2)
    hidden = client.chat.completions.create(
        model="cards", messages=ASKED, tools=[tool], tool_choice="none", max_tokens=2
    )
    assert hidden.choices


def test_the_asynchronous_client(url, engine):
    async def ask():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            asked = {"messages": ASKED, "max_tokens": 8, "temperature": 0}
            whole = [client.chat.completions.create(model=model, **asked) for model in ("base", "cards", "tone")]
            stream = await client.chat.completions.create(model="cards", **asked, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*whole)], "".join(pieces)

    said, streamed = asyncio.run(ask())
    assert said == [engine.generate([ASKED], model=model, max_new_tokens=8)[0] for model in ("", "cards", "tone")]
    assert streamed == said[1]
