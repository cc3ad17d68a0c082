"""Each row of a mixed batch is what it is alone: every kind of adapter, and every two of them."""

import functools

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_moe, tiny_qwen
from adapterkit.testing.models import SIZES
from tests.plugins.bridge_cases import WORKING, adapter_of
from tests.serving.engines import CLOSE, base_of, held, kinds, off, serving, solo, tokens_of, watched_logits
from tests.support import state_digest

NEW = 4
SHORT, LONG = [5, 61, 9, 40, 8], [70, 6, 5, 33, 90, 12, 44, 51, 9]
NAMES = (
    *("base", "lora r1", "lora r7", "lora r64", "rslora", "dora", "lora with biases", "lora with rows"),
    *("prompt tuning", "prefix tuning", "full", "ia3", "a stranger's", "stack", "blend", "weighted"),
    *("blend of others", "stack with tokens", "stack with a prefix"),
)


def mistral():
    """Its layers see six positions, fewer than a page."""
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)).eval()


FAMILIES = {
    "gpt2": tiny_gpt2,
    "qwen": tiny_qwen,
    "tied": lambda: tiny_llama(tied=True),
    "mistral": mistral,
    "moe": tiny_moe,
}


class Expected:
    """The base's own answers: tokens, and the logits that each was taken from."""

    def __init__(self, base, adapters):
        self.base, self.adapters = base, adapters

    @functools.cache  # noqa: B019 - as long as the tests of a module
    def __call__(self, name, prompt):
        adapter = self.adapters[name]
        tokens = solo(self.base, adapter, prompt, NEW)
        ids = torch.tensor([[*prompt, *tokens]])
        return tokens, self.base.logits(ids, adapter=adapter)[0, len(prompt) - 1 :]

    def check(self, name, prompt, answer, seen):
        tokens, logits = self(name, tuple(prompt))
        assert tokens_of(answer) == tokens, name
        found = torch.stack(seen[answer.id])
        assert off(found, logits[: len(found)]) < CLOSE, name


@pytest.fixture(scope="module")
def llama():
    """A base, every kind of adapter, an engine that has all of them in memory, and what is expected of it."""
    base = base_of(tiny_llama())
    adapters = kinds(base)
    assert tuple(adapters) == NAMES
    before = state_digest(base.model)
    with serving(base, prefill_tokens=64) as engine:
        for adapter in adapters.values():
            engine.submit(SHORT, adapter=adapter, max_new_tokens=1).result()
        yield base, adapters, engine, Expected(base, adapters)
    assert state_digest(base.model) == before


def ask(engine, adapters, name, prompt):
    return engine.submit(prompt, adapter=adapters[name], max_new_tokens=NEW)


@pytest.mark.parametrize("one", NAMES)
def test_every_two_kinds_in_one_batch(llama, one):
    _, adapters, engine, expected = llama
    with watched_logits() as seen:
        for other in NAMES[NAMES.index(one) :]:
            with held(engine):
                pair = [ask(engine, adapters, one, SHORT), ask(engine, adapters, other, LONG)]
            expected.check(one, SHORT, pair[0], seen)
            expected.check(other, LONG, pair[1], seen)


def test_each_kind_changes_the_answer(llama):
    """Else the tests here are blind."""
    _, _, _, expected = llama
    plain = expected("base", tuple(SHORT))[1][0]
    same = [name for name in NAMES[1:] if off(expected(name, tuple(SHORT))[1][0], plain) < 100 * CLOSE]
    assert same == []
    firsts = {tuple(expected(name, tuple(LONG))[1][0].tolist()) for name in NAMES}
    assert len(firsts) == len(NAMES)


def test_all_kinds_in_one_batch(llama, monkeypatch):
    _, adapters, engine, expected = llama
    steps, step = [], engine._runner.step
    monkeypatch.setattr(engine._runner, "step", lambda rows: steps.append(len(rows)) or step(rows))
    with watched_logits() as seen:
        with held(engine):
            answers = [
                ask(engine, adapters, name, SHORT if turn else LONG) for turn in (0, 1) for name in reversed(NAMES)
            ]
        for turn in (0, 1):
            for name in reversed(NAMES):
                expected.check(name, SHORT if turn else LONG, answers.pop(0), seen)
    assert max(steps) >= 16, "they were not in one batch: the test is blind"


@pytest.mark.parametrize("family", FAMILIES)
def test_all_kinds_on_other_bases(family):
    base = base_of(FAMILIES[family]())
    adapters, before = kinds(base), state_digest(base.model)
    expected = Expected(base, adapters)
    with serving(base, prefill_tokens=16) as engine, watched_logits() as seen:
        for prompt in (SHORT, LONG):
            with held(engine):
                answers = {name: ask(engine, adapters, name, prompt) for name in NAMES}
            for name, answer in answers.items():
                expected.check(name, prompt, answer, seen)
    assert state_digest(base.model) == before


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_all_methods_of_peft_in_one_batch(family):
    base = base_of({"llama": tiny_llama, "gpt2": tiny_gpt2}[family]())
    adapters = {"base": None}
    for name in WORKING:
        try:
            adapters[name] = adapter_of(name, base)
        except Exception:  # PEFT has none for GPT-2's layers
            if family != "gpt2":
                raise
    assert len(adapters) > 20
    expected = Expected(base, adapters)
    with serving(base, max_batch=64) as engine, watched_logits() as seen:
        for prompt in (SHORT, LONG):
            with held(engine):
                answers = {name: ask(engine, adapters, name, prompt) for name in adapters}
            for name, answer in answers.items():
                expected.check(name, prompt, answer, seen)
