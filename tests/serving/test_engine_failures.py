"""What fails, fails alone; limits hold; an engine that is closed leaves nobody waiting."""

import threading
import time

import pytest
import torch

from adapterkit import Blend, Stack, Text
from adapterkit.contracts import Conversation, Message
from adapterkit.errors import (
    AdapterkitError,
    ArtifactError,
    ConfigError,
    DeadlineError,
    EngineError,
    OverloadedError,
    SelectionError,
)
from adapterkit.serving import Engine, Watcher
from adapterkit.testing import tiny_llama
from tests.serving.engines import PATIENT, Order, base_of, held, poisoned, serving, settle, solo, tokens_of, twist
from tests.support import make_adapter, state_digest

PROMPT = [5, 61, 9, 40, 8]
FOR_EVER = 4000


@pytest.fixture(scope="module")
def base():
    made = base_of(tiny_llama(max_position_embeddings=4096))
    before = state_digest(made.model)
    yield made
    assert state_digest(made.model) == before


@pytest.fixture(scope="module")
def adapter(base):
    return make_adapter(base, rank=4)


@pytest.fixture
def endless():
    """A prompt whose answer would take very long; asked for with :data:`FOR_EVER` tokens."""
    return [70, 6, 5]


@pytest.fixture(scope="module")
def unending():
    """A base that never ends an answer by itself."""
    model = tiny_llama(max_position_embeddings=8192, num_hidden_layers=1)
    with torch.no_grad():
        model.lm_head.weight[1] = 0
    made = base_of(model)
    assert made.tokenizer.eos_token_id == 1
    return made


def begun(engine, **how):
    """A request whose answer has begun and will go on for long."""
    answer = engine.submit([70, 6, 5], **{"max_new_tokens": FOR_EVER, **how})
    next(iter(answer))
    return answer


# -- adapters that fail -----------------------------------------------------------------------------------------------


def failing(base, adapter, how, tmp_path):
    """An adapter that cannot answer, and what is said of it."""
    if how == "raises":
        return twist(base, fails=True), EngineError
    if how == "corrupt":
        folder = adapter.save(tmp_path / "corrupt")
        file = folder / "adapter_model.safetensors"
        return folder, lambda: file.write_bytes(file.read_bytes()[:-9] + b"corrupted")
    return poisoned(make_adapter(base, rank=4, seed=9), float(how)), AdapterkitError


@pytest.mark.parametrize("how", ["nan", "inf", "1e38", "raises"])
def test_an_adapter_that_fails_takes_nobody_along(base, adapter, how, tmp_path):
    bad, error = failing(base, adapter, how, tmp_path)
    expected = {one: solo(base, one, PROMPT, 12) for one in (None, adapter)}
    with serving(base) as engine:
        for _ in range(2):
            with held(engine):
                answers = [
                    (one, engine.submit(PROMPT, adapter=one, max_new_tokens=12)) for one in (None, bad, adapter, bad)
                ]
            for one, answer in answers:
                if one is bad:
                    with pytest.raises(error) as caught:
                        answer.result()
                    assert "secret" not in str(caught.value)
                else:
                    assert tokens_of(answer) == expected[one]
            settle(engine)


def test_a_failing_part_of_a_blend_fails_it_alone(base, adapter):
    bad = poisoned(make_adapter(base, rank=4, seed=9), 1e38)
    with serving(base) as engine:
        with held(engine):
            wrong = [
                engine.submit(PROMPT, adapter=one)
                for one in (Blend({adapter: 1.0, bad: 5e9}), Stack(adapter, twist(base)))
            ]
            fine = engine.submit(PROMPT, adapter=adapter, max_new_tokens=9)
        for one in wrong:
            with pytest.raises(SelectionError):
                one.result()
        assert tokens_of(fine) == solo(base, adapter, PROMPT, 9)


def test_a_file_that_was_damaged_fails_its_own_requests(base, adapter, tmp_path):
    other = make_adapter(base, rank=4, seed=9)
    folder = other.save(tmp_path / "one")
    size = base.prepare(adapter).bytes
    with serving(base, {"one": folder, "two": adapter}, adapter_memory=size, host_memory=1) as engine:
        assert tokens_of(engine.submit(PROMPT, model="one", max_new_tokens=5)) == solo(base, other, PROMPT, 5)
        assert tokens_of(engine.submit(PROMPT, model="two", max_new_tokens=5)) == solo(base, adapter, PROMPT, 5)
        file = folder / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-9] + b"corrupted")
        with held(engine):
            wrong = [engine.submit(PROMPT, model="one", max_new_tokens=5) for _ in range(3)]
            fine = engine.submit(PROMPT, model="two", max_new_tokens=5)
        for answer in wrong:
            with pytest.raises(ArtifactError):
                answer.result()
        assert tokens_of(fine) == solo(base, adapter, PROMPT, 5)
        settle(engine)


def test_an_adapter_larger_than_all_memory_fails_by_whatever_name(base, adapter):
    large = make_adapter(base, rank=64)
    with serving(base, {"x": large, "y": large, "z": adapter}, adapter_memory=base.prepare(adapter).bytes) as engine:
        with held(engine):
            answers = [engine.submit(PROMPT, model=name, max_new_tokens=3) for name in "xyzxy"]
        for answer in answers[:2] + answers[3:]:
            with pytest.raises(EngineError, match="adapter_memory"):
                answer.result()
        assert tokens_of(answers[2]) == solo(base, adapter, PROMPT, 3)


def test_virtual_tokens_count_for_the_length(base):
    soft = make_adapter(base, method="prompt_tuning", tokens=8)
    with serving(base, max_length=32) as engine:
        with pytest.raises(SelectionError, match="leaves no room"):
            engine.submit([5] * 24, adapter=soft).result()
        assert len(tokens_of(engine.submit([5] * 23, adapter=soft))) <= 1
        for length in (32, 40):
            with pytest.raises(SelectionError, match="leaves no room"):
                engine.submit([5] * length)
        with pytest.raises(SelectionError, match="do not fit"):
            engine.submit([5] * 20, max_new_tokens=13)
        assert len(tokens_of(engine.submit([5] * 20, max_new_tokens=12))) <= 12


# -- who gives up -----------------------------------------------------------------------------------------------------


def test_a_request_may_be_given_up_before_while_and_after(unending):
    with serving(unending, max_batch=1) as engine:
        running = begun(engine)
        waiting = engine.submit(PROMPT, max_new_tokens=5)
        waiting.cancel()
        assert waiting.result() == ""
        assert (waiting.finish_reason, waiting.cancelled, waiting.usage.completion_tokens) == ("cancelled", True, 0)
        assert not running.done
        running.cancel()
        assert running.result()
        assert running.finish_reason == "cancelled"
        whole = engine.submit(PROMPT, max_new_tokens=5)
        tokens_of(whole)
        whole.cancel()
        assert (whole.finish_reason, whole.cancelled) == ("length", False)


def test_a_stream_that_is_left_gives_its_request_up(unending):
    with serving(unending) as engine:
        stream = engine.stream(PROMPT, max_new_tokens=FOR_EVER)
        next(stream)
        stream.close()
        settle(engine)
        assert engine.stats().tokens < FOR_EVER


@pytest.mark.parametrize("where", ["running", "waiting", "loading"])
def test_a_deadline_holds_wherever_a_request_is(unending, where):
    with serving(unending, max_batch=1) as engine:
        before = begun(engine) if where == "waiting" else None
        adapter = make_adapter(unending, rank=1) if where == "loading" else None
        if adapter:
            engine.residency.take = lambda _: None
        late = engine.submit([70, 6, 5], adapter=adapter, max_new_tokens=FOR_EVER, timeout=0.05)
        with pytest.raises(DeadlineError, match="given up after"):
            late.result()
        assert isinstance(late._error, TimeoutError)
        if before:
            assert not before.done
            before.cancel()
        if adapter:
            del engine.residency.take


@pytest.mark.parametrize("timeout", [1e-9, 1e11, 1e300])
def test_no_timeout_stops_the_engine(base, timeout):
    fresh = make_adapter(base, rank=1, seed=77)
    with serving(base) as engine:
        try:
            answer = engine.submit(PROMPT, adapter=fresh, max_new_tokens=3, timeout=timeout)
        except AdapterkitError:
            return  # it may be refused
        try:
            assert tokens_of(answer) == solo(base, fresh, PROMPT, 3)
        except DeadlineError:
            assert timeout < 1


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_queue", "max_queue_per_adapter", "max_queue_per_key"])
def test_more_than_may_wait_are_refused_with_when_to_come_again(unending, limit):
    told = []

    class Told(Watcher):
        def refused(self, name, error):
            told.append(error)

    with serving(unending, max_batch=1, watcher=Told(), **{limit: 2}) as engine:
        running = begun(engine, key="k")
        waiting = [engine.submit(PROMPT, key="k", max_new_tokens=1) for _ in range(2)]
        with pytest.raises(OverloadedError) as caught:
            engine.submit(PROMPT, key="k", max_new_tokens=1)
        assert 1 <= caught.value.retry_after <= 60
        assert told == [caught.value]
        if limit == "max_queue_per_key":
            waiting.append(engine.submit(PROMPT, key="other", max_new_tokens=1))
        waiting[0].cancel()
        waiting[0].result()
        waiting.append(engine.submit(PROMPT, key="k", max_new_tokens=1))
        running.cancel()
        assert [len(tokens_of(one)) for one in waiting[1:]] == [1] * (len(waiting) - 1)
        assert not engine._loop._waiting_by_key.total()


@pytest.mark.parametrize("limit", ["max_running_per_adapter", "max_running_per_key"])
def test_no_more_run_at_once_than_may(base, adapter, limit):
    most = []

    class Counting(Watcher):
        def stepped(self, rows, tokens, seconds, names):
            most.append(names.get("a", 0))

    with serving(base, {"a": adapter}, watcher=Counting(), **{limit: 2}) as engine:
        with held(engine):
            answers = [engine.submit(PROMPT, model="a", key="k", max_new_tokens=6) for _ in range(7)]
            other = engine.submit(PROMPT, max_new_tokens=6)
        assert [tokens_of(one) for one in answers] == [solo(base, adapter, PROMPT, 6)] * 7
        assert tokens_of(other) == solo(base, None, PROMPT, 6)
    assert max(most) == 2


def test_a_flood_for_one_adapter_does_not_starve_another(base, adapter):
    other, order = make_adapter(base, rank=4, seed=5), Order()
    with serving(base, {"flood": adapter, "quiet": other}, max_batch=2, quantum=32, watcher=order) as engine:
        for name in ("flood", "quiet"):
            engine.submit(PROMPT, model=name, max_new_tokens=1).result()
        with held(engine):
            flood = [engine.submit(PROMPT, model="flood", max_new_tokens=8) for _ in range(40)]
            quiet = engine.submit(PROMPT, model="quiet", max_new_tokens=8)
        assert [len(tokens_of(one)) for one in flood] == [len(tokens_of(flood[0]))] * 40
    assert order.answers.index(quiet) < 2 + 8


# -- the end ----------------------------------------------------------------------------------------------------------


def test_what_is_under_way_may_end_before_it_closes(base, adapter):
    engine = Engine(base, {"a": adapter}, max_batch=2)
    with held(engine):
        answers = [engine.submit(PROMPT, model="a", max_new_tokens=30) for _ in range(5)]
    engine.close(drain=PATIENT)
    assert engine.state == "stopped"
    assert [tokens_of(one) for one in answers] == [solo(base, adapter, PROMPT, 30)] * 5


def test_nobody_waits_for_an_engine_that_is_closed(unending):
    engine = Engine(unending, max_batch=1)
    running = begun(engine)
    waiting = [engine.submit(PROMPT) for _ in range(3)]
    read = []
    readers = [threading.Thread(target=lambda one=one: read.append(one.result())) for one in (running, *waiting)]
    for one in readers:
        one.start()
    engine.close(drain=0.05)
    for one in readers:
        one.join(PATIENT)
        assert not one.is_alive()
    assert {one.finish_reason for one in (running, *waiting)} == {"cancelled"}
    assert engine.stats().kv_pages_used == 0
    with pytest.raises(EngineError, match="stopped"):
        engine.submit(PROMPT)
    engine.close()
    assert engine.state == "stopped"


def test_an_engine_that_drains_takes_nothing_new(unending):
    engine = Engine(unending)
    running = begun(engine)
    closing = threading.Thread(target=engine.close, kwargs={"drain": PATIENT})
    closing.start()
    deadline = time.monotonic() + PATIENT
    while engine.state == "ready" and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(EngineError, match="draining"):
        engine.submit(PROMPT)
    running.cancel()
    closing.join(PATIENT)
    assert engine.state == "stopped"
    assert running.finish_reason == "cancelled"


def test_a_failure_of_the_engine_itself_is_told_to_everybody(unending, monkeypatch):
    engine = Engine(unending, max_batch=1)
    running = begun(engine)
    waiting = engine.submit(PROMPT)

    def broken():
        raise MemoryError("gone")

    monkeypatch.setattr(engine._loop._batch, "step", broken)
    for one in (running, waiting):
        with pytest.raises(EngineError, match="has failed"):
            one.result()
    with pytest.raises(EngineError, match="failed"):
        engine.submit(PROMPT)
    assert engine.state == "failed"
    engine.close()


def test_where_one_of_several_prompts_is_refused_the_others_are_given_up(unending):
    with serving(unending) as engine:
        with pytest.raises(AdapterkitError):
            engine.generate([[70, 6, 5], [-1]], max_new_tokens=FOR_EVER)
        settle(engine)
        assert engine.stats().tokens < FOR_EVER


def test_a_watcher_that_raises_takes_nobody_along(base, adapter, caplog):
    class Failing(Watcher):
        def finished(self, answer):
            raise ZeroDivisionError

    with serving(base, watcher=Failing()) as engine:
        for one in (None, adapter):
            assert tokens_of(engine.submit(PROMPT, adapter=one, max_new_tokens=4)) == solo(base, one, PROMPT, 4)
    assert "a watcher has failed in finished" in caplog.text


def test_a_beginning_that_fails_keeps_no_pages(base, monkeypatch):
    prefix = make_adapter(base, method="prefix_tuning", seed=1, tokens=20)
    with serving(base) as engine:
        write = engine._runner.pool.write
        monkeypatch.setattr(engine._runner.pool, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.submit(PROMPT, adapter=prefix).result()
        settle(engine)
        monkeypatch.setattr(engine._runner.pool, "write", write)
        assert tokens_of(engine.submit(PROMPT, adapter=prefix, max_new_tokens=4)) == solo(base, prefix, PROMPT, 4)


def test_weights_that_nothing_survives_are_the_fault_of_who_asks(base, adapter):
    with serving(base, {"cards": adapter}) as engine:
        with pytest.raises(SelectionError, match="lower the weights"):
            engine.submit(PROMPT, model="cards*1e30").result()
        fine = engine.submit(PROMPT, model="cards", max_new_tokens=4)
        assert tokens_of(fine) == solo(base, adapter, PROMPT, 4)


def test_a_pin_goes_with_what_it_was_for(base, adapter):
    with serving(base, {"cards": adapter}) as engine:
        engine.submit(PROMPT, model="cards", max_new_tokens=2).result()
        settle(engine)
        engine.residency.pin(adapter.digest)
        other = make_adapter(base, rank=4, seed=5)
        engine.add("cards", other, replace=True)
        assert adapter.digest not in {one.digest for one in engine.residency.held()}
        assert tokens_of(engine.submit(PROMPT, model="cards", max_new_tokens=4)) == solo(base, other, PROMPT, 4)


def test_a_text_that_is_far_too_long_is_not_read(base, monkeypatch):
    long = "a" * 5_000_000
    with serving(base) as engine:
        monkeypatch.setattr(engine._prompts, "_renderer", None)
        turns = (Message("user", "hi"), Message("assistant", "", tool_calls=long))
        for prompt in (
            long,
            Text(long),
            [{"role": "user", "content": long}],
            Conversation(turns),
            Conversation(turns[:1], long),
        ):
            with pytest.raises(SelectionError, match="5,000,0"):
                engine.submit(prompt)


def test_what_an_engine_cannot_be_made_of_is_said(base, adapter):
    with pytest.raises(ConfigError, match=r"open it first: Base\('examples/base'\)"):
        Engine("examples/base")
    with pytest.raises(ConfigError, match="needs a name"):
        Engine(base, [adapter])
    with serving(base) as engine, pytest.raises(SelectionError, match=r"Adapter\.load"):
        engine.submit(PROMPT, adapter="out/cards/adapter")
