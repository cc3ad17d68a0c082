"""Hooks as the author of a plugin meets them: what is provided is used, and what is wrapped passes through the wrapper."""

import pytest
import torch
from transformers import AutoTokenizer

from adapterkit import Base, Loss, LowRank, Objective, Registry, hookimpl
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter

ROWS = [{"prompt": "which one", "completion": "this one"}]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


def base_with(plugin, tokenizer=None, **changes):
    registry = Registry()
    registry.add(plugin)
    return Base(tiny_llama(**changes), tokenizer=tokenizer, registry=registry)


def test_an_objective_of_a_plugin_is_what_a_run_minimises(tokenizer):
    class Constant:
        @hookimpl
        def adapterkit_objectives(self):
            yield Objective(name="constant", loss=lambda forward, batch: Loss(forward(batch).sum() * 0 + 14.0, 1))

    base = base_with(Constant(), tokenizer, vocab_size=8192, max_position_embeddings=128)
    adapter = base.train(ROWS, objective="constant", rank=2, max_steps=1)
    trained = adapter.manifest.training["data"]["trained_tokens"]
    assert adapter.manifest.training["objective"] == "constant"
    assert adapter.manifest.training["loss"] == pytest.approx(14.0 / trained)


def test_a_wrapper_of_build_decides_what_is_built(tokenizer):
    class FewerLayers:
        @hookimpl(wrapper=True)
        def adapterkit_build(self, sites):
            layers = yield
            assert set(layers) < {site.name for site in sites}
            return {name: layer for name, layer in layers.items() if ".layers.1." in name}

    base = base_with(FewerLayers(), tokenizer, vocab_size=8192, max_position_embeddings=128)
    adapter = base.train(ROWS, rank=2, max_steps=1)
    assert adapter.tensors
    assert all(".layers.1." in name for name in adapter.tensors)
    assert base.resident == (adapter,)


def test_a_wrapper_of_lower_decides_what_acts(ids):
    class Doubled:
        @hookimpl(wrapper=True)
        def adapterkit_lower(self, method, layers):
            effects = yield
            assert method.name == "lora"
            assert set(layers) == set(effects)
            return {
                site: tuple(LowRank(one.down, one.up, 2 * one.scale) for one in here) for site, here in effects.items()
            }

    base, doubled = Base(tiny_llama()), base_with(Doubled())
    once = make_adapter(base, rank=2, alpha=2.0, target_modules=("q_proj",))
    twice = make_adapter(base, rank=2, alpha=4.0, target_modules=("q_proj",))
    expected = base.logits(ids, adapter=twice)
    assert torch.allclose(doubled.logits(ids, adapter=once), expected, atol=1e-5)
    assert not torch.allclose(base.logits(ids, adapter=once), expected, atol=1e-3)
