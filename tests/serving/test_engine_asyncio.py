"""The engine for asyncio: the same answers, and a task that is cancelled gives its request up."""

import asyncio
import threading

import pytest
from transformers import AutoTokenizer

from adapterkit import Base, DataError, Text
from adapterkit.errors import AdapterkitError, EngineError, UnknownNameError
from adapterkit.serving import Answer, AsyncEngine, Choice, Engine, Piece, Usage
from adapterkit.testing import tiny_llama
from tests.serving.engines import PATIENT, settle
from tests.support import EXAMPLE_BASE, make_adapter

PROMPTS = ["Where is my card?", "hello", "and now something else"]
FOR_EVER = 4000


@pytest.fixture(scope="module")
def base():
    model = tiny_llama(vocab_size=8192, max_position_embeddings=8192, num_hidden_layers=1)
    return Base(model, tokenizer=AutoTokenizer.from_pretrained(EXAMPLE_BASE))


@pytest.fixture(scope="module")
def adapters(base):
    return {name: make_adapter(base, seed=seed, rank=4) for seed, name in enumerate(("one", "two"))}


@pytest.fixture
def engine(base, adapters):
    with Engine(base, adapters) as made:
        yield made
        settle(made)
        assert made.state == "ready"


def run(work):
    return asyncio.run(asyncio.wait_for(work, PATIENT))


async def until(holds):
    """Another thread makes it so, and tells nobody."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_answers_are_those_of_the_base(base, adapters):
    async def work():
        async with AsyncEngine(base, adapters=adapters, max_batch=8) as engine:
            names = ["", "one", "two"] * 3
            many = await asyncio.gather(*(engine.generate(PROMPTS, model=name, max_new_tokens=9) for name in names))
            single = await engine.generate(PROMPTS[0], max_new_tokens=9)
            pieces = [piece async for piece in engine.stream(PROMPTS[1], model="two", max_new_tokens=9)]
            text = await engine.generate(Text("Once"), max_new_tokens=3)
            return names, many, single, pieces, text

    names, many, single, pieces, text = run(work())
    expected = {name: base.generate(PROMPTS, adapter=adapters.get(name), max_new_tokens=9) for name in set(names)}
    assert many == [expected[name] for name in names]
    assert single == expected[""][0]
    assert "".join(pieces) == expected["two"][1]
    assert isinstance(text, str)


def test_an_answer_is_read_by_several_tasks_and_afterwards(engine):
    async def read(answer):
        return [piece.text async for piece in answer]

    async def work():
        answer = await AsyncEngine(engine).submit(PROMPTS[0], max_new_tokens=20)
        first, second = await asyncio.gather(read(answer), read(answer))
        return first, second, await read(answer), answer.result()

    first, second, third, text = run(work())
    assert first == second == third
    assert "".join(first) == text


def test_a_task_that_is_cancelled_gives_its_request_up(engine):
    async def work():
        whole = asyncio.create_task(AsyncEngine(engine).generate([PROMPTS[0]] * 3, max_new_tokens=FOR_EVER))
        await until(lambda: engine.stats().tokens)
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole

    run(work())
    settle(engine)
    assert engine.stats().tokens < FOR_EVER


def test_a_stream_that_is_left_gives_its_request_up(engine):
    async def work():
        async for _ in AsyncEngine(engine).stream(PROMPTS[0], max_new_tokens=FOR_EVER):
            return

    run(work())
    settle(engine)
    assert engine.stats().tokens < FOR_EVER


def test_a_task_that_is_cancelled_while_it_asks_leaves_no_request_behind(engine, monkeypatch):
    asked, submit, go = [], engine.submit, threading.Event()

    def slow(*given, **how):
        go.wait(PATIENT)
        asked.append(submit(*given, **how))
        return asked[0]

    monkeypatch.setattr(engine, "submit", slow)

    async def work():
        task = asyncio.create_task(AsyncEngine(engine).submit(PROMPTS[0], max_new_tokens=FOR_EVER))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await until(lambda: asked and asked[0].cancelled)

    run(work())


def test_where_one_prompt_is_refused_the_others_are_given_up(engine):
    async def work():
        with pytest.raises(DataError):
            await AsyncEngine(engine).generate([PROMPTS[0], ""], max_new_tokens=FOR_EVER)

    run(work())
    settle(engine)
    assert engine.stats().tokens < FOR_EVER


def test_errors_are_those_of_the_engine(engine):
    async def work():
        other = AsyncEngine(engine)
        with pytest.raises(UnknownNameError):
            await other.generate("hi", model="nobody")
        with pytest.raises(UnknownNameError):
            [piece async for piece in other.stream("hi", model="nobody")]
        with pytest.raises(AdapterkitError):
            await other.generate("hi", timeout=1e-9)

    run(work())


def test_two_event_loops_and_a_thread_share_an_engine(base, engine):
    expected, found = base.generate(PROMPTS, max_new_tokens=30), []

    def in_a_loop():
        found.append(run(AsyncEngine(engine).generate(PROMPTS, max_new_tokens=30)))

    threads = [threading.Thread(target=in_a_loop) for _ in range(3)]
    for one in threads:
        one.start()
    found.append(engine.generate(PROMPTS, max_new_tokens=30))
    for one in threads:
        one.join(PATIENT)
    assert found == [expected] * 4


def test_a_loop_that_is_gone_does_not_harm_the_engine(base, engine):
    """Whose tasks were never ended: what they waited for comes, and nobody is there."""
    loop = asyncio.new_event_loop()
    answer = engine.submit(PROMPTS[0], max_new_tokens=300)
    pieces = answer.__aiter__()
    loop.run_until_complete(pieces.__anext__())
    loop.close()
    assert engine.generate(PROMPTS, max_new_tokens=9) == base.generate(PROMPTS, max_new_tokens=9)
    assert answer.result()


def test_a_loop_that_goes_while_it_is_told():
    """Between a look whether it is closed and the call: a race, made certain."""
    answer, loop = Answer("x", Choice(""), 1), asyncio.new_event_loop()
    pieces = answer.__aiter__()
    answer.put(Piece("text"))
    loop.run_until_complete(pieces.__anext__())
    loop.close()
    loop.is_closed = lambda: False
    answer.finish("stop", Usage(1, 1))
    del loop.is_closed
    assert answer.result() == "text"


def test_closing_ends_what_waits(base):
    async def work():
        engine = AsyncEngine(base)
        answer = await engine.submit(PROMPTS[0], max_new_tokens=FOR_EVER)
        reading = asyncio.create_task(asyncio.wait_for(collect(answer), PATIENT))
        await until(lambda: engine.engine.stats().tokens)
        await engine.close()
        await reading
        assert answer.finish_reason == "cancelled"
        with pytest.raises(EngineError):
            await engine.generate("hi")

    async def collect(answer):
        return [piece async for piece in answer]

    run(work())
