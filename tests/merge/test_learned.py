"""Learned blends: weights found on a few examples."""

import types

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapterkit import (
    Base,
    Blend,
    ConfigError,
    DataError,
    Loss,
    Objective,
    Registry,
    SelectionError,
    TrainingError,
    hookimpl,
)
from adapterkit.blending.search import search
from adapterkit.discovery import find
from adapterkit.testing import tiny_llama
from tests.support import make_adapter, state_digest

WORDS = ["card", "lost", "money", "bank", "transfer", "city", "pin", "top", "phone", "fee", "cash", "rate"]
ROWS = [{"prompt": f"{one} {two}", "completion": f"{two} {one} {one}"} for one in WORDS for two in WORDS[:4]]
TRUE = [0.8, -0.5, 0.3]


@pytest.fixture(scope="module")
def target():
    """What the objective of these tests imitates; set once the base is there."""
    return types.SimpleNamespace(base=None, blend=None, loss=None)


@pytest.fixture(scope="module")
def base(target):
    def imitate(forward, batch):
        """How far the logits are from those of the blend that is to be found: zero for its weights alone."""
        aim = target.base.logits(batch["input_ids"], adapter=target.blend)
        squares = (forward(batch) - aim).square().mean(dim=-1)
        return Loss(squares.sum(), torch.tensor(float(squares.numel())))

    def nothing(forward, batch):
        return Loss(forward(batch).sum() * float("nan"), torch.tensor(1.0))

    class Plugin:
        @hookimpl
        def adapterkit_objectives(self):
            yield Objective(name="imitate", loss=imitate)
            yield Objective(name="nothing", loss=nothing)

    registry = Registry([one for one in find() if one.distribution == "adapterkit"])
    registry.add(Plugin())
    tokens = {token: number for number, token in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    target.base = Base(tiny_llama(), tokenizer=tokenizer, registry=registry)
    return target.base


@pytest.fixture(scope="module")
def adapters(base, target):
    """Three methods of acting: low rank, low rank with a scale of its own (DoRA), and whole changes."""
    made = [
        make_adapter(base, rank=2, target_modules=("q_proj", "down_proj"), seed=1),
        make_adapter(base, rank=3, target_modules=("v_proj", "down_proj"), use_dora=True, seed=2, scale=0.4),
        make_adapter(base, method="full", target_modules=("layers.0",), seed=3, scale=0.1),
    ]
    target.blend = Blend(dict(zip(made, TRUE, strict=True)))
    return made


def test_gradients_through_the_blend_find_the_weights_of_a_known_mixture(base, adapters):
    before = state_digest(base.model)
    kept = [{name: tensor.clone() for name, tensor in one.tensors.items()} for one in adapters]
    found = base.learn_blend(adapters, ROWS[:24], objective="imitate", steps=60, learning_rate=0.2)
    assert list(found.weights.values()) == pytest.approx(TRUE, abs=0.02)
    assert found.blend == Blend(dict(zip(adapters, found.weights.values(), strict=True)))
    assert found.losses["learned"] < 0.01 * found.losses["uniform"]
    assert found.losses["learned"] < 0.01 * min(found.losses[name] for name in found.weights)
    assert (found.rows, found.held_out) == (19, 5)
    assert state_digest(base.model) == before
    for adapter, tensors in zip(adapters, kept, strict=True):
        assert all(torch.equal(tensor, adapter.tensors[name]) for name, tensor in tensors.items())
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_a_single_adapter_is_weighted_too(base, adapters, target, monkeypatch):
    monkeypatch.setattr(target, "blend", Blend({adapters[0]: 0.6}))
    found = base.learn_blend(adapters[:1], ROWS[:12], objective="imitate", steps=40, learning_rate=0.2)
    assert list(found.weights.values()) == pytest.approx([0.6], abs=0.02)  # it begins with 1, which is no constant here


def test_a_search_without_gradients_finds_them_too(base, adapters):
    options = {"how": "gradient_free", "objective": "imitate", "batch_size": 64}
    found = base.learn_blend(adapters, ROWS[:10], steps=200, l1=0.0, **options)
    assert list(found.weights.values()) == pytest.approx(TRUE, abs=0.1)
    assert found.losses["learned"] < 0.1 * found.losses["uniform"]
    small = base.learn_blend(adapters, ROWS[:10], steps=40, l1=100.0, **options)
    assert sum(map(abs, small.weights.values())) < 0.5  # the norm counts


def test_what_the_losses_say_is_what_evaluate_says(base, adapters):
    named = {"cards": adapters[0], "tone": adapters[1]}
    held_out = ROWS[:6]
    found = base.learn_blend(named, ROWS[10:20], eval_data=held_out, steps=8)
    assert list(found.losses) == ["base", "cards", "tone", "uniform", "learned"]
    contenders = {
        "base": None,
        **named,
        "uniform": Blend({adapters[0]: 0.5, adapters[1]: 0.5}),
        "learned": found.blend,
    }
    scores = base.compare(held_out, contenders, max_new_tokens=1, resamples=0)
    for name, loss in found.losses.items():
        assert scores[name]["loss"] == pytest.approx(loss, abs=1e-5)
    assert found.to_json()["weights"] == dict(found.weights)
    assert found.to_json()["digest"] == found.blend.digest


@pytest.mark.parametrize("how", ["gradient", "gradient_free"])
def test_the_same_seed_finds_the_same_weights(base, adapters, how):
    options = {"how": how, "steps": 8, "batch_size": 4, "objective": "imitate"}
    one, same, other = (base.learn_blend(adapters[:2], ROWS[:12], seed=seed, **options) for seed in (1, 1, 2))
    assert one == same
    assert one.weights != other.weights


def test_weights_stay_within_their_bounds(base, adapters):
    found = base.learn_blend(adapters[:2], ROWS[:12], steps=5, learning_rate=10.0, bound=0.75)
    assert max(map(abs, found.weights.values())) == 0.75


def test_blends_may_be_parts(base, adapters):
    inner = Blend({adapters[0]: 0.5, adapters[1]: 2.0})
    found = base.learn_blend({"inner": inner, "other": adapters[2]}, ROWS[:8], steps=2)
    weight = found.weights["inner"]
    assert found.blend.parts[:2] == ((adapters[0], weight * 0.5), (adapters[1], weight * 2.0))


def test_what_is_in_use_and_what_is_resident_stay_as_they_are(base, adapters):
    base.use(adapters[0])
    composed = dict(base._composed)
    base.learn_blend(adapters, ROWS[:8], steps=2)
    assert base.active == adapters[0]
    assert dict(base._composed) == composed
    base.use(None)


def test_what_cannot_be_learned_is_refused(base, adapters):
    soft = make_adapter(base, method="prompt_tuning", tokens=2)
    with pytest.raises(SelectionError, match="its weight is 1 and cannot be learned"):
        base.learn_blend([adapters[0], soft], ROWS)
    with pytest.raises(SelectionError, match="twice"):
        base.learn_blend([adapters[0], adapters[0]], ROWS)
    with pytest.raises(SelectionError, match="1 to 1000 adapters, not 0"):
        base.learn_blend([], ROWS)
    with pytest.raises(SelectionError, match="no adapter can be called 'uniform'"):
        base.learn_blend({"uniform": adapters[0]}, ROWS)
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        base.learn_blend(adapters, ROWS, step=3)
    with pytest.raises(DataError, match="nothing would be left"):
        base.learn_blend(adapters, ROWS[:1])
    for how in ("gradient", "gradient_free"):
        with pytest.raises(TrainingError, match="the loss is"):
            base.learn_blend(adapters, ROWS, how=how, objective="nothing", steps=2)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_search_finds_the_lowest_point_of_a_long_valley(count):
    """A thousand times as long as it is wide, and along no axis: steps have to follow it."""
    lowest = np.linspace(0.9, -0.7, count)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(count, count)))[0]
    shape = turn @ np.diag(np.logspace(0, 3, count)) @ turn.T

    def loss(point):
        return float((point - lowest) @ shape @ (point - lowest))

    found, value = search(loss, [1 / count] * count, tries=500, bound=1.5, seed=0)
    assert found == pytest.approx(lowest, abs=0.02)
    assert value == loss(found)


def test_the_search_tries_as_often_as_it_may_within_its_bounds():
    tried = []
    found, value = search(
        lambda point: tried.append(point) or float(-point.sum()), [0.0, 0.0], tries=50, bound=1.5, seed=0
    )
    assert len(tried) == 50
    assert max(float(abs(point).max()) for point in tried) == 1.5
    assert value == float(-found.sum()) == min(float(-point.sum()) for point in tried)
    assert search(lambda point: float(point.sum()), [0.3], tries=1, bound=1.5, seed=0) == ([0.3], 0.3)
