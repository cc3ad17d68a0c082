"""IA3 keeps adapterkit's contract, and its factors are where the paper has them."""

import pytest
import torch
from adapterkit_ia3 import IA3Config, IA3Layer
from torch import nn

from adapterkit import Site
from adapterkit.testing import conformance


@conformance("ia3")
def test_it_keeps_the_contract(check):
    check()


@pytest.mark.parametrize(("name", "want"), [("self_attn.k_proj", [10.0, 24.0]), ("mlp.down_proj", [14.0, 22.0])])
def test_a_feed_forward_layer_has_its_factors_on_the_input_and_others_on_the_output(name, want):
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
    layer = IA3Layer(Site(name, "linear", 2, 2, module=linear), IA3Config())
    x = torch.tensor([[1.0, 2.0]])
    assert layer(x, linear(x)).tolist() == linear(x).tolist() == [[5.0, 8.0]]
    layer.ia3_l.data = torch.tensor([2.0, 3.0]).view_as(layer.ia3_l)
    assert layer(x, linear(x)).tolist() == [want]
