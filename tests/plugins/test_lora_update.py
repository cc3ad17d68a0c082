"""LoRA's own backward passes: the gradients of the formula, and an output that is overwritten only where it is nobody else's."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from adapterkit import Base
from adapterkit.runtime.actions import LayerAction
from adapterkit.sites import find_sites, frozen_weight
from adapterkit.testing import tiny_llama
from adapterkit_lora.layer import LoraLayer
from adapterkit_lora.update import formula, update
from tests.support import make_adapter

SCALE = 1.7


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def given(*shape):
    """An input, both factors, and the weight and bias of a layer from 4 to 5."""
    tensors = [drawn(*shape, 4), drawn(2, 4, seed=1), drawn(5, 2, seed=2)]
    return [one.requires_grad_() for one in tensors], drawn(5, 4, seed=3), drawn(5, seed=4)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_those_of_the_formula(shape, biased, whole):
    inputs, weight, bias = given(*shape)
    layer = (weight, bias if biased else None)

    def acted(x, down, up):
        y = functional.linear(x, *layer)
        return update(x, y, down, up, SCALE, weight=weight if whole else None)

    x, down, up = inputs
    torch.testing.assert_close(acted(*inputs), formula(x, functional.linear(x, *layer), down, up, SCALE))
    assert gradcheck(acted, inputs)


def test_an_output_that_is_all_of_a_layers_is_overwritten():
    (x, down, up), weight, _ = given(2, 3)
    y = functional.linear(x, weight)
    assert update(x, y, down, up, SCALE, weight=weight).data_ptr() == y.data_ptr()


def test_some_rows_of_an_output_are_not_and_the_layer_keeps_its_own_way_back():
    inputs, weight, _ = given(3, 2)

    def acted(x, down, up):
        y = functional.linear(x, weight)
        before = y.detach().clone()
        out = torch.cat([y[:1], update(x[1:], y[1:], down, up, SCALE, weight=weight)])
        assert torch.equal(y, before)
        return out

    assert gradcheck(acted, inputs)


def test_an_input_that_needs_no_gradient_is_given_none():
    (x, down, up), weight, _ = given(3)
    x = x.detach()
    out = update(x, functional.linear(x, weight), down, up, SCALE, weight=weight)
    found = torch.autograd.grad(out.sum(), (down, up))
    wanted = torch.autograd.grad(formula(x, functional.linear(x, weight), down, up, SCALE).sum(), (down, up))
    torch.testing.assert_close(found, wanted)


def watch(module):
    module.register_forward_hook(lambda *_: None)  # a second one, beside the site's


@pytest.mark.parametrize(
    "change",
    [
        watch,
        lambda module: module.register_forward_pre_hook(lambda *_: None),
        lambda module: module.register_full_backward_hook(lambda *_: None),
        lambda module: module.requires_grad_(requires_grad=True),
        lambda module: setattr(module, "forward", module.forward),
        lambda module: torch.nn.utils.parametrize.register_parametrization(module, "weight", torch.nn.Identity()),
    ],
    ids=["hook", "pre-hook", "backward hook", "trained", "own forward", "parametrized"],
)
def test_a_layer_that_somebody_watches_or_changes_is_left_to_itself(change):
    base = Base(tiny_llama())
    module = base.model.model.layers[0].mlp.up_proj
    assert base.sites  # installed: its one hook
    assert torch.equal(frozen_weight(module), module.weight)
    change(module)
    assert frozen_weight(module) is None


def test_training_under_a_hook_of_the_users_gives_the_same_gradients():
    ids = torch.arange(1, 12)[None]

    def gradients(*, hook):
        base = Base(tiny_llama())
        seen = []
        module = base.model.model.layers[1].self_attn.q_proj
        assert base.sites
        if hook:
            module.register_forward_hook(lambda _, __, output: seen.append(output.detach().clone()))
        adapter = make_adapter(base, rank=4)
        layers = {site.name: LoraLayer(site, adapter.config) for site in find_sites(base.model) if "proj" in site.name}
        for name, layer in layers.items():
            layer.load_state_dict({key: adapter.tensors[f"{name}.{key}"] for key in layer.state_dict()})
        with base.runtime.override({name: LayerAction("lora", name, layer) for name, layer in layers.items()}):
            base.model(ids, labels=ids).loss.backward()
        return [one.grad for layer in layers.values() for one in layer.parameters()], seen

    plain, _ = gradients(hook=False)
    watched, seen = gradients(hook=True)
    assert len(seen) == 1
    assert all(one.abs().max() > 0 for one in plain)
    torch.testing.assert_close(watched, plain)


def test_a_layer_that_does_not_say_so_may_not_overwrite_its_output():
    class Careless(torch.nn.Module):
        def forward(self, x, y):
            return y.add_(x)

    class Declared(Careless):
        overwrites_output = True

    x = torch.ones(2, 3)
    assert torch.equal(LayerAction("mine", "here", Declared())(x, torch.ones(2, 3)), torch.full((2, 3), 2.0))
    with pytest.raises(Exception, match="changed its input in place"):
        LayerAction("mine", "here", Careless())(x, torch.ones(2, 3))
