"""The engine: what it answers is what the base answers, whatever happens beside it."""

import itertools
import json
import threading

import pytest
import torch
from transformers import AutoTokenizer

from adapterkit import Base, Blend, ConfigError, DataError, Stack, Store, Text
from adapterkit.errors import EngineError, UnknownNameError
from adapterkit.serving import Engine, Watcher
from adapterkit.testing import tiny_llama
from tests.serving.engines import CLOSE, Order, base_of, held, serving, settle, solo, tokens_of
from tests.support import EXAMPLE_BASE, make_adapter, state_digest

LONG = [5 + number * 7 % 90 for number in range(100)]


@pytest.fixture(scope="module")
def base():
    made = base_of(tiny_llama(max_position_embeddings=256))
    before = state_digest(made.model)
    yield made
    assert state_digest(made.model) == before


@pytest.fixture(scope="module")
def adapters(base):
    return {f"a{seed}": make_adapter(base, seed=seed, rank=4) for seed in range(5)}


@pytest.fixture(scope="module")
def texts():
    """A base that reads and writes text."""
    model = tiny_llama(vocab_size=8192, max_position_embeddings=512)
    return Base(model, tokenizer=AutoTokenizer.from_pretrained(EXAMPLE_BASE))


def asked(engine, base, adapters, prompts, count=8):
    """Every adapter with every prompt, all at once, and what each should be."""
    with held(engine):
        answers = [
            (engine.submit(prompt, model=name, max_new_tokens=count), name, prompt)
            for prompt in prompts
            for name in ("", *adapters)
        ]
    for answer, name, prompt in answers:
        assert tokens_of(answer) == solo(base, adapters.get(name), prompt, count), (name, len(prompt))


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_long_prompts_are_read_in_parts_beside_short_ones(base, adapters, prefix_cache):
    with serving(base, adapters, prefill_tokens=16, prefix_cache=prefix_cache) as engine:
        asked(engine, base, adapters, [LONG, LONG[:40], LONG[:3], LONG[:16], LONG[:17], LONG[:33]], count=4)


def test_adapters_that_come_and_go_answer_as_before(base, adapters):
    size = base.prepare(adapters["a0"]).bytes
    with serving(base, adapters, adapter_memory=2 * size, host_memory=size, max_batch=4) as engine:
        for _ in range(2):
            asked(engine, base, adapters, [LONG[:5], LONG[:20]], count=3)
        assert len([one for one in engine.residency.held() if one.tier == "device"]) <= 2


def test_requests_that_are_interrupted_for_room_go_on_where_they_were(base, adapters):
    interrupted, watcher = [], Watcher()
    watcher.interrupted = interrupted.append
    with serving(base, adapters, kv_memory=pages(base, 14), max_batch=8, watcher=watcher) as engine:
        asked(engine, base, adapters, [LONG[:15], LONG[:30]], count=40)
        assert len(interrupted) > 3
        # also one that draws its tokens, and one with virtual tokens
        soft = make_adapter(base, method="prompt_tuning", seed=3, tokens=3)
        luck = {"temperature": 1.0, "seed": 5, "max_new_tokens": 60}
        alone = tokens_of(engine.submit(LONG[:15], **luck))
        del interrupted[:]
        with held(engine):
            answers = [engine.submit(LONG[:15], **luck) for _ in range(4)]
            answers += [engine.submit(LONG[:15], adapter=soft, max_new_tokens=60) for _ in range(4)]
        assert [tokens_of(one) for one in answers[:4]] == [alone] * 4
        assert [tokens_of(one) for one in answers[4:]] == [solo(base, soft, LONG[:15], 60)] * 4
        assert interrupted


def pages(base, count):
    config = base.model.config
    return count * 16 * 4 * 2 * config.num_key_value_heads * config.hidden_size // config.num_attention_heads * 2


def test_small_requests_do_not_keep_a_large_one_waiting_for_ever(base):
    order = Order()
    with serving(base, kv_memory=pages(base, 20), max_batch=8, max_queue_per_adapter=1000, watcher=order) as engine:
        other = make_adapter(base, rank=1)
        engine.submit([5], adapter=other, max_new_tokens=1).result()
        with held(engine):
            small = [engine.submit([5, 6, 7 + number % 50], max_new_tokens=20) for number in range(150)]
            large = engine.submit(LONG + LONG[:60], adapter=other, max_new_tokens=20)
        assert tokens_of(large) == solo(base, other, LONG + LONG[:60], 20)
        assert tokens_of(small[-1])
    assert order.answers.index(large) < 60


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_moved_alias_changes_new_requests_only(base, adapters, tmp_path):
    store = Store(tmp_path)
    for number, name in enumerate(("a0", "a1")):
        version = store.add(adapters[name], "cards")
        if not number:
            store.promote(version, "production")
    with serving(base, store=store) as engine:
        first = engine.submit(LONG[:5], model="cards@production", max_new_tokens=150)
        begun = next(iter(first))
        store.promote(version, "production")
        second = engine.submit(LONG[:5], model="cards@production", max_new_tokens=5)
        assert (first.choice.digest, second.choice.digest) == (adapters["a0"].digest, adapters["a1"].digest)
        assert begun.tokens[0].id == tokens_of(first)[0]
        assert tokens_of(first) == solo(base, adapters["a0"], LONG[:5], 150)
        assert tokens_of(second) == solo(base, adapters["a1"], LONG[:5], 5)


def test_the_base_in_use_elsewhere_is_no_matter(base, adapters):
    expected = solo(base, None, LONG[:5], 8)
    with serving(base, adapters) as engine:
        base.use(adapters["a1"])
        try:
            assert tokens_of(engine.submit(LONG[:5], max_new_tokens=8)) == expected
        finally:
            base.use(None)


def test_what_is_not_served_is_refused_and_nothing_waits(base, adapters):
    with serving(base, adapters) as engine:
        for error, how in (
            (UnknownNameError, {"model": "a9"}),
            (ConfigError, {"model": "a1", "adapter": adapters["a1"]}),
            (ConfigError, {"temperature": -1}),
            (ConfigError, {"nothing": 1}),
        ):
            with pytest.raises(error):
                engine.submit([5], **how)
        for prompt in ([], [5, -1], [97], [True], [5, 1.5], b"abc", "", None, 7, [[5]]):
            with pytest.raises(DataError):
                engine.submit(prompt)


# -- what is answered -------------------------------------------------------------------------------------------------


def test_texts_are_answered_as_base_generate_does(texts):
    adapter = make_adapter(texts, rank=4)
    prompts = ["Where is my card?", "hello", [{"role": "user", "content": "and now?"}]]
    with serving(texts, {"one": adapter}) as engine:
        for one, name in ((None, ""), (adapter, "one"), (Blend({adapter: 0.5}), "one*0.5")):
            expected = texts.generate(prompts, adapter=one, max_new_tokens=20)
            assert engine.generate(prompts, model=name, max_new_tokens=20) == expected
            assert ["".join(engine.stream(one, model=name, max_new_tokens=20)) for one in prompts] == expected
        assert (
            engine.generate(Text("Once"), max_new_tokens=9).strip()
            == texts.generate([Text("Once")], max_new_tokens=9)[0]
        )


@pytest.mark.parametrize("luck", [{}, {"top_p": 0.7}, {"top_k": 9}, {"temperature": 3.0, "top_k": 50, "top_p": 0.9}])
def test_a_seed_draws_the_same_alone_among_others_and_in_base_generate(texts, luck):
    how = {"temperature": 1.0, **luck, "max_new_tokens": 12}
    with serving(texts) as engine:
        expected = [texts.generate("hello there", seed=seed, **how) for seed in (1, 2, 3)]
        assert len(set(expected)) == 3
        assert [engine.generate("hello there", seed=seed, **how) for seed in (1, 2, 3)] == expected
        with held(engine):
            others = [engine.submit("other", seed=seed, **how) for seed in range(9)]
            among = [engine.submit("hello there", seed=seed, **how) for seed in (3, 1, 2)]
        assert [one.result() for one in among] == [expected[2], expected[0], expected[1]]
        assert len({one.result() for one in others}) > 5
        assert len({engine.generate("hello there", **how) for _ in range(3)}) > 1, (
            "without a seed, each draws by itself"
        )


def test_a_stop_string_ends_the_answer_and_is_not_in_it(texts):
    with serving(texts) as engine:
        text = engine.generate("Where is my card?", max_new_tokens=30)
        for start, end in itertools.combinations(range(4, len(text), len(text) // 5), 2):
            stop = text[start:end]
            if stop != stop.strip():
                continue
            answer = engine.submit("Where is my card?", stop=(stop, "never"), max_new_tokens=30)
            assert answer.result() == text[: text.find(stop)].rstrip()
            assert answer.finish_reason == "stop"
            assert answer.usage.completion_tokens <= 30
        whole = engine.submit("Where is my card?", stop=("never",), max_new_tokens=30)
        assert (whole.result(), whole.finish_reason) == (text, "length")
        assert whole.usage.completion_tokens == 30


def test_logprobs_are_those_of_the_base(base, adapters):
    with serving(base, adapters) as engine:
        answer = engine.submit(LONG[:9], model="a1", max_new_tokens=6, logprobs=5)
        tokens = [token for piece in answer for token in piece.tokens]
    ids = torch.tensor([LONG[:9] + [token.id for token in tokens]])
    logprobs = base.logits(ids, adapter=adapters["a1"])[0, 8:-1].log_softmax(-1)
    assert len(tokens) == 6
    for token, row in zip(tokens, logprobs, strict=True):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=CLOSE)
        best = row.topk(5)
        assert [number for number, _, _ in token.top] == best.indices.tolist()
        assert [value for *_, value in token.top] == pytest.approx(best.values.tolist(), abs=CLOSE)
        assert token.text == base.tokenizer.decode([token.id])


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_an_answer_held_to_a_schema_is_of_it(texts, temperature):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"urgent": {"type": "boolean"}, "kind": {"enum": ["card", "payment"]}},
        "required": ["urgent", "kind"],
        "additionalProperties": False,
    }
    how = {"json_schema": json.dumps(schema), "max_new_tokens": 60, "temperature": temperature}
    with serving(texts) as engine:
        free = engine.submit("hello", max_new_tokens=5)
        answers = [engine.submit("My card is lost", seed=seed, **how) for seed in range(4)]
        for answer in answers:
            value = json.loads(answer.result())
            assert (type(value["urgent"]), value["kind"] in ("card", "payment"), len(value)) == (bool, True, 2)
            assert answer.finish_reason == "stop"
        assert free.result() == texts.generate("hello", max_new_tokens=5), "a neighbour is free"
        engine.submit("hello", json_schema="true", max_new_tokens=3).result()
        for wrong in ("{", "3", "false", '{"type": "nothing"}', '{"type":"integer","minimum":5,"maximum":3}'):
            with pytest.raises(ConfigError, match="json_schema"):
                engine.submit("hello", json_schema=wrong)


def test_an_answer_may_be_read_more_than_once_and_by_many(base):
    with serving(base) as engine:
        answer = engine.submit(LONG[:5], max_new_tokens=20)
        read = []
        threads = [threading.Thread(target=lambda: read.append(answer.result())) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert [answer.result()] * 4 == read
        assert len(tokens_of(answer)) == 20
        settle(engine)


def test_two_engines_share_a_base(base, adapters):
    with serving(base, adapters) as one, serving(base, adapters) as other:
        with held(one), held(other):
            answers = [engine.submit(LONG[:9], model="a2", max_new_tokens=30) for engine in (one, other) * 3]
        expected = solo(base, adapters["a2"], LONG[:9], 30)
        assert [tokens_of(answer) for answer in answers] == [expected] * 6


def test_no_engine_where_there_is_no_room(base):
    with pytest.raises((ConfigError, EngineError, ValueError)):
        Engine(base, kv_memory=100)


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#"}, {"anyOf": [{"type": "object", "properties": {f"p{n}{'x' * 40}": {}}} for n in range(900)]}],
)
def test_a_schema_that_no_answer_can_be_held_to_fails_alone(texts, schema):
    """What follows it gives up, and would then take any answer for whole."""
    with serving(texts) as engine:
        fine = engine.submit("hello", max_new_tokens=9)
        for seed in range(3):
            try:
                how = {"max_new_tokens": 60, "temperature": 1.0, "seed": seed}
                answer = engine.submit("hello", json_schema=json.dumps(schema), **how)
                text = answer.result()
            except ConfigError:
                continue
            else:
                assert answer.finish_reason == "length" or json.loads(text) is not None
        assert fine.result() == texts.generate("hello", max_new_tokens=9)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 99_999_989},
        {"type": "number", "multipleOf": 0.99991},
        {"allOf": [{"type": "integer", "multipleOf": 499}, {"type": "integer", "multipleOf": 1009}]},
        {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"multipleOf": 499.0}, "y": {"multipleOf": 1009}}},
    ],
)
def test_a_schema_that_takes_all_memory_is_refused_at_once(texts, schema):
    with serving(texts) as engine, pytest.raises(ConfigError, match="multipleOf"):
        engine.submit("hello", json_schema=json.dumps(schema))


def test_rows_with_the_same_virtual_tokens_share_a_plan(base, adapters, monkeypatch):
    soft = make_adapter(base, method="prompt_tuning", seed=3, tokens=3)
    both, plans = Stack(adapters["a1"], soft), []
    with serving(base, prefix_cache=False) as engine:
        step = engine._runner.step
        monkeypatch.setattr(
            engine._runner, "step", lambda rows: plans.append({id(row.plan) for row in rows}) or step(rows)
        )
        with held(engine):
            answers = [engine.submit(LONG[:length], adapter=both, max_new_tokens=5) for length in (4, 6, 9)]
        assert [tokens_of(one) for one in answers] == [solo(base, both, LONG[:length], 5) for length in (4, 6, 9)]
    assert {len(some) for some in plans} == {1}
