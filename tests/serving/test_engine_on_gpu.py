"""The engine on a GPU: with graphs and without, every kind in one batch is what the base answers by itself."""

import pytest
import torch

from adapterkit.testing import tiny_llama
from tests.serving.engines import CLOSE, base_of, held, kinds, off, serving, tokens_of, watched_logits
from tests.support import make_adapter, state_digest

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

NEW = 6
SHORT, LONG = [5, 61, 9, 40, 8], [70, 6, 5, 33, 90, 12, 44, 51, 9] * 3


@pytest.fixture(scope="module")
def base():
    return base_of(tiny_llama().to("cuda"))


def check(base, adapter, prompt, answer, seen):
    """Every token is the likeliest of the logits that the base has for what stands before it."""
    tokens, found = tokens_of(answer), torch.stack(seen[answer.id])
    ids = torch.tensor([[*prompt, *tokens]], device="cuda")
    wanted = base.logits(ids, adapter=adapter)[0, len(prompt) - 1 :]
    assert off(found, wanted[: len(found)]) < CLOSE
    assert tokens == found.argmax(-1).tolist()[: len(tokens)]


@pytest.mark.parametrize("graphs", [True, False])
def test_all_kinds_in_one_batch(base, graphs):
    adapters, before = kinds(base), state_digest(base.model)
    with serving(base, cuda_graphs=graphs, prefill_tokens=64, kv_memory="1MB") as engine, watched_logits() as seen:
        graphed = engine._runner._graphed
        assert (graphed is not None and graphed._step is not None) == graphs
        for prompt in (SHORT, LONG):
            with held(engine):
                answers = {name: engine.submit(prompt, adapter=adapters[name], max_new_tokens=NEW) for name in adapters}
            for name, answer in answers.items():
                check(base, adapters[name], prompt, answer, seen)
    assert state_digest(base.model) == before


def test_adapters_that_come_and_go(base):
    """There is room for few of them on the device: each request waits for its own, and none acts with another's."""
    adapters = [make_adapter(base, seed=seed, rank=8) for seed in range(12)]
    size = max(base.prepare(one).bytes for one in adapters)
    with serving(base, adapter_memory=3 * size, max_batch=4, kv_memory="1MB") as engine, watched_logits() as seen:
        for turn in range(3):
            answers = [(one, engine.submit(SHORT, adapter=one, max_new_tokens=NEW)) for one in adapters[turn:]]
            for one, answer in answers:
                check(base, one, SHORT, answer, seen)
        assert sum(one.bytes for one in engine.residency.held() if one.tier == "device") <= 3 * size


def test_in_bfloat16():
    base = base_of(tiny_llama().to("cuda", torch.bfloat16))
    adapters = {"base": None, "one": make_adapter(base, seed=1, rank=8), "other": make_adapter(base, seed=2, rank=16)}
    with serving(base, kv_memory="1MB") as engine, watched_logits() as seen:
        with held(engine):
            answers = {name: engine.submit(LONG, adapter=one, max_new_tokens=NEW) for name, one in adapters.items()}
        for name, answer in answers.items():
            ids = torch.tensor([[*LONG, *tokens_of(answer)]], device="cuda")
            wanted = base.logits(ids, adapter=adapters[name])[0, len(LONG) - 1 :].float()
            found = torch.stack(seen[answer.id])
            assert float((found - wanted[: len(found)]).norm() / wanted.norm()) < 0.05
