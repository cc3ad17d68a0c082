"""Hooks as the author of a plugin meets them: what is provided is used, and what is wrapped passes through the wrapper."""

import inspect
import types
from collections import defaultdict

import pytest
import torch
from transformers import AutoTokenizer

from adapterkit import Base, Loss, LowRank, Objective, Registry, TrainingError, hookimpl, hooks, publish
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter

ROWS = [{"prompt": "which one", "completion": "this one"}]
HOOKS = [name for name in vars(hooks) if name.startswith("adapterkit_")]


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


def test_a_wrapper_of_initialize_sees_layers_that_are_fresh_and_may_set_them(tokenizer):
    class Ones:
        @hookimpl(wrapper=True)
        def adapterkit_initialize(self, method, layers, base, examples):
            yield
            assert (method.name, base.tokenizer, len(examples)) == ("lora", tokenizer, 1)
            for layer in layers.values():
                assert not layer.lora_B.weight.any()
                torch.nn.init.ones_(layer.lora_B.weight)

    base = base_with(Ones(), tokenizer, vocab_size=8192, max_position_embeddings=128)
    adapter = base.train(ROWS, rank=2, max_steps=1, learning_rate=1e-6)
    ups = [tensor for name, tensor in adapter.tensors.items() if "lora_B" in name]
    assert all(torch.allclose(up, torch.ones(()), atol=1e-3) for up in ups)


def test_a_wrapper_of_finish_decides_what_is_kept(tokenizer):
    class Halved:
        @hookimpl(wrapper=True)
        def adapterkit_finish(self, config, layers):
            kept, trained = yield
            assert (kept, set(trained)) == (config, set(layers))
            for layer in trained.values():
                layer.lora_B.weight.data.fill_(0.5)
            return kept, trained

    base = base_with(Halved(), tokenizer, vocab_size=8192, max_position_embeddings=128)
    adapter = base.train(ROWS, rank=2, max_steps=1)
    assert all(bool((tensor == 0.5).all()) for name, tensor in adapter.tensors.items() if "lora_B" in name)


# -- every hook there is ----------------------------------------------------------------------------------------------


def recording(name, calls):
    """An implementation of the hook ``name`` that takes all that its specification names, and changes nothing."""
    words = list(inspect.signature(getattr(hooks, name)).parameters)
    wraps = name in hooks.OPERATION_HOOKS
    given = ", ".join(f"{word}={word}" for word in words)
    lines = [
        f"def {name}({', '.join(words)}):",
        f" calls.append(dict({given}))",
        " return (yield)" if wraps else " return ()",
    ]
    made = {"calls": calls[name]}
    exec("\n".join(lines), made)  # pluggy reads the names of arguments from the code
    return hookimpl(wrapper=wraps)(made[name])


def listening_to(names, calls):
    plugin = types.ModuleType("listening")
    for name in names:
        setattr(plugin, name, recording(name, calls))
    return plugin


def used(tokenizer):
    """Every call that a plugin for all hooks gets while an adapter is trained and evaluated."""
    calls = defaultdict(list)
    base = base_with(listening_to(HOOKS, calls), tokenizer, vocab_size=8192, max_position_embeddings=128)
    base.train(ROWS, rank=2, max_steps=1, logging_steps=1)
    base.evaluate(ROWS, adapter=None, max_new_tokens=1)
    about = {"license": "mit", "base_model": "org/tiny", "unevaluated": True}
    publish(base.resident[0], "memory://hooks/cards", **about, registry=base.registry)
    with pytest.raises(TrainingError):
        base.train(ROWS, rank=2, max_steps=9, learning_rate=1e18)
    return calls


@pytest.fixture(scope="module")
def calls(tokenizer):
    return used(tokenizer)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_really_called_with_all_that_it_specifies(name, calls):
    assert calls[name], "no plugin is ever asked: call it where it belongs, and extend `used` to get there"
    given = calls[name][0]
    missing = [word for word, value in given.items() if value is None]
    assert missing == []
    assert name not in hooks.OPERATION_HOOKS or given["method"].name == "lora"


def test_a_run_that_fails_tells_so_once_and_never_that_it_has_finished(tokenizer):
    told = []

    class Listening:
        @hookimpl
        def adapterkit_train_failed(self, run, error):
            told.append((run.method, error))

        @hookimpl
        def adapterkit_train_finished(self, run):
            told.append(run)

    base = base_with(Listening(), tokenizer, vocab_size=8192, max_position_embeddings=128)
    with pytest.raises(TrainingError) as caught:
        base.train(ROWS, rank=2, max_steps=9, learning_rate=1e18)
    assert told == [("lora", caught.value)]


def test_a_hook_that_nobody_calls_would_be_found(tokenizer, monkeypatch):
    forgotten, notify = hooks.EVENTS[0], Registry.notify
    monkeypatch.setattr(
        Registry, "notify", lambda self, event, **given: event == forgotten or notify(self, event, **given)
    )
    calls = used(tokenizer)
    assert [name for name in HOOKS if not calls[name]] == [forgotten]
