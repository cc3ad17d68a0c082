"""Effects: each acts at a site as its definition says, on any kind of layer, and the base does not notice."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adapterkit import ArtifactError, Base, Bias, Dense, LowRank, PluginError, PrefixKV, Rows, Scale, Tokens
from adapterkit.baking import baked
from adapterkit.runtime import actions_for
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import state_digest

CLOSE = {"atol": 1e-10, "rtol": 0}
SITES = {
    "linear with bias": (lambda: tiny_llama(attention_bias=True), "layers.0.self_attn.q_proj"),
    "linear": (tiny_llama, "layers.0.mlp.down_proj"),
    "conv1d": (tiny_gpt2, "h.0.attn.c_attn"),
    "embedding": (tiny_llama, "embed_tokens"),
    "head": (tiny_llama, "lm_head"),
}
CPU, F64 = torch.device("cpu"), torch.float64


def site_of(kind):
    family, name = SITES[kind]
    model = family().double()
    if kind == "linear with bias":
        nn.init.normal_(model.model.layers[0].self_attn.q_proj.bias)
    return next(site for site in Base(model).sites if site.name.endswith(name))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def input_of(site):
    if site.kind == "embedding":
        return torch.randint(site.in_features, (2, 5), generator=torch.Generator().manual_seed(1))
    return random(2, 5, site.in_features, seed=1)


def computed(site, weight, bias, x):
    """What a layer of this kind gives with another weight, ``(out_features, in_features)``, and bias."""
    if site.kind == "embedding":
        return functional.embedding(x, weight.T)
    return functional.linear(x, weight, bias)


def act(site, effects, x):
    y = site.module(x)
    for action in actions_for(site, effects, CPU, F64):
        y = action(x, y)
    return y


def parameters(site):
    return site.weight.detach().clone(), getattr(site.module, "bias", None)


@pytest.mark.parametrize("kind", SITES)
def test_what_is_added_to_a_weight_is_added_to_the_output(kind):
    site = site_of(kind)
    weight, bias = parameters(site)
    x, out, size = input_of(site), site.out_features, site.in_features
    low = LowRank(random(3, size), random(out, 3, seed=2), 0.7)
    dense = Dense(random(out, size, seed=3))
    want = computed(site, weight + 0.7 * low.up @ low.down + dense.delta, bias, x)
    with torch.no_grad():
        torch.testing.assert_close(act(site, [low, dense], x), want, **CLOSE)
        torch.testing.assert_close(act(site, [dense, low], x), want, **CLOSE)


@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_an_output_is_scaled_with_the_bias_or_without_it(kind, with_bias):
    site = site_of(kind)
    weight, bias = parameters(site)
    x, vector = input_of(site), random(site.out_features, seed=4)
    own = None if bias is None else bias * vector if with_bias else bias
    with torch.no_grad():
        want = computed(site, weight * vector[:, None], own, x)
        torch.testing.assert_close(act(site, [Scale(vector, bias=with_bias)], x), want, **CLOSE)


@pytest.mark.parametrize("kind", ["linear", "linear with bias", "conv1d", "head"])
def test_an_input_is_scaled_before_the_layer(kind):
    site = site_of(kind)
    x, vector = input_of(site), random(site.in_features, seed=4)
    with torch.no_grad():
        torch.testing.assert_close(act(site, [Scale(vector, side="input")], x), site.module(x * vector), **CLOSE)


@pytest.mark.parametrize("kind", ["linear with bias", "linear", "conv1d"])
def test_baked_weights_are_what_effects_do_in_any_order(kind):
    site = site_of(kind)
    size, out, x = site.in_features, site.out_features, input_of(site)
    effects = [
        LowRank(random(2, size), random(out, 2, seed=2), 0.5),
        Scale(random(size, seed=3), side="input"),
        *([Bias(random(out, seed=4))] if "bias" in site.parameters else []),
        Scale(random(out, seed=5), bias=False),
        Scale(random(out, seed=6)),
    ]
    changed = baked(site, [(effects, 1.0)])
    weight = changed["weight"].T if kind == "conv1d" else changed["weight"]
    with torch.no_grad():
        want = functional.linear(x, weight, changed.get("bias"))
        torch.testing.assert_close(act(site, effects, x), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("effect", [Bias, lambda vector: Dense(vector, "bias")])
@pytest.mark.parametrize("kind", SITES)
def test_a_bias_is_added(kind, effect):
    site = site_of(kind)
    x, vector = input_of(site), random(site.out_features, seed=4)
    with torch.no_grad():
        torch.testing.assert_close(act(site, [effect(vector)], x), site.module(x) + vector, **CLOSE)


@pytest.mark.parametrize("kind", ["embedding", "head"])
def test_rows_of_a_table_are_replaced(kind):
    site = site_of(kind)
    weight = site.weight.detach().T.clone() if kind == "embedding" else site.weight.detach().clone()
    index = torch.tensor([3, 90, 17])
    rows = random(3, weight.shape[1], seed=5)
    weight[index] = rows
    x = torch.tensor([[3, 4, 90, 17, 3]]) if kind == "embedding" else input_of(site)
    want = functional.embedding(x, weight) if kind == "embedding" else functional.linear(x, weight)
    with torch.no_grad():
        torch.testing.assert_close(act(site, [Rows(index, rows)], x), want, **CLOSE)


def test_parameters_inside_a_module_are_changed_for_one_call_only():
    base = Base(tiny_gpt2().double())
    before = state_digest(base._loaded.model)
    site = next(site for site in base.sites if site.name.endswith("ln_f"))
    x = random(2, 5, 32)
    twin = copy.deepcopy(site.module)
    twin.weight.data += 0.5
    twin.bias.data -= 0.25
    effects = [Dense(torch.full((32,), 0.5), "weight"), Dense(torch.full((32,), -0.25), "bias")]
    with torch.no_grad():
        torch.testing.assert_close(act(site, effects, x), twin(x), **CLOSE)
    base.detach()
    assert state_digest(base.source.location) == before


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        ("linear", Tokens(torch.zeros(2, 32))),
        ("linear", Rows(torch.tensor([1]), torch.zeros(1, 48))),
        ("norm", Scale(torch.ones(32))),
    ],
)
def test_an_effect_that_cannot_act_there_is_refused(kind, effect):
    sites = Base(tiny_llama()).sites
    site = next(one for one in sites if one.name.endswith("model.norm" if kind == "norm" else "down_proj"))
    with pytest.raises(PluginError, match=f"{type(effect).__name__} cannot act at"):
        actions_for(site, [effect], CPU, torch.float32)


def test_a_factor_that_is_infinite_in_the_base_dtype_is_refused():
    site = site_of("linear")
    with pytest.raises(ArtifactError, match=r"too large for the base's torch\.float16"):
        actions_for(site, [Dense(torch.full((32, 48), 1e6))], CPU, torch.float16)


@settings(max_examples=25, deadline=None)
@given(
    rank=st.integers(1, 6),
    scale=st.floats(-4, 4),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["linear", "conv1d", "embedding"]),
)
def test_a_low_rank_effect_is_its_dense_one(rank, scale, seed, kind):
    site = site_of(kind)
    low = LowRank(random(rank, site.in_features, seed=seed), random(site.out_features, rank, seed=seed + 1), scale)
    x = input_of(site)
    with torch.no_grad():
        one, other = act(site, [low], x), act(site, [Dense(low.scale * low.up @ low.down)], x)
    torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("q_proj", Bias(torch.ones(1))),
        ("q_proj", Scale(torch.tensor(2.0))),
        ("q_proj", Dense(torch.ones(1, 32))),
        ("q_proj", LowRank(torch.ones(2, 1), torch.ones(32, 2), 1.0)),
        ("model.norm", Dense(torch.ones(32), "nothing")),
        ("input", Tokens(torch.ones(3, 1))),
        ("input", PrefixKV(torch.ones(2, 1, 3, 8), torch.ones(2, 1, 3, 8))),
        ("embed_tokens", Rows(torch.tensor([-1]), torch.ones(1, 32))),
        ("embed_tokens", Rows(torch.tensor([5, 5]), torch.ones(2, 32))),
        ("embed_tokens", Scale(torch.ones(97), side="input")),
    ],
)
def test_an_effect_of_other_sizes_is_refused_and_not_spread_over_the_layer(name, effect):
    site = next(one for one in Base(tiny_llama()).sites if one.name.endswith(name))
    with pytest.raises(PluginError, match=f"the effect {type(effect).__name__} (does not fit|cannot act at)"):
        actions_for(site, [effect], CPU, torch.float32)


def test_two_changes_of_one_parameter_are_both_made():
    site = next(one for one in Base(tiny_llama().double()).sites if one.name == "model.norm")
    x, half = random(2, 5, 32), Dense(torch.full((32,), 0.5))
    with torch.no_grad():
        torch.testing.assert_close(act(site, [half, half], x), act(site, [Dense(torch.ones(32))], x), **CLOSE)


class Gained(nn.Linear):
    """A linear layer with a parameter more."""

    def __init__(self):
        super().__init__(32, 32)
        self.gain = nn.Parameter(torch.rand(32))

    def forward(self, x):
        return super().forward(x) * self.gain


def test_all_parameters_of_a_layer_with_one_more_are_changed():
    model = tiny_llama()
    model.model.layers[0].self_attn.o_proj = Gained()
    model.double()
    site = next(one for one in Base(model).sites if one.name.endswith("layers.0.self_attn.o_proj"))
    x, twin = random(2, 5, 32), copy.deepcopy(site.module)
    deltas = {name: random(*one.shape) for name, one in site.parameters.items()}
    for name, delta in deltas.items():
        getattr(twin, name).data += delta
    with torch.no_grad():
        got = act(site, [Dense(delta, name) for name, delta in deltas.items()], x)
        torch.testing.assert_close(got, nn.Linear.forward(twin, x) * twin.gain, **CLOSE)
