"""Each part that is computed in one kernel says what the formula says, and so does its gradient: here in torch, in float64."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from adapterkit.kernels import head_losses, rotate, silu_mul


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_gated_layers():
    gate, up = drawn(3, 5), drawn(3, 5, seed=1)
    torch.testing.assert_close(silu_mul(gate, up), functional.silu(gate) * up)
    assert gradcheck(silu_mul, (gate, up))


@pytest.mark.parametrize("rows", [1, 2])
def test_rotary_positions(rows):
    x, cos, sin = drawn(2, 3, 4, 6), drawn(rows, 4, 6, seed=1).detach(), drawn(rows, 4, 6, seed=2).detach()
    first, second = x.chunk(2, dim=-1)
    expected = x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
    torch.testing.assert_close(rotate(x, cos, sin), expected)
    assert gradcheck(lambda x: rotate(x, cos, sin), (x,))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_losses_after_a_frozen_head(biased, most):
    hidden, weight = drawn(7, 4), drawn(11, 4, seed=1).detach()
    bias = drawn(11, seed=2).detach() if biased else None
    targets = torch.tensor([0, 10, 3, 3, 7, 1, 2])
    expected = functional.cross_entropy(functional.linear(hidden, weight, bias), targets, reduction="none")
    torch.testing.assert_close(head_losses(hidden, weight, bias, targets, most), expected)
    # every token with a factor of its own, as those of rows with weights have
    assert gradcheck(lambda hidden: head_losses(hidden, weight, bias, targets, most), (hidden,))


def test_losses_under_autocast_are_computed_in_half_precision_and_given_in_full():
    hidden, weight = drawn(7, 16).float().detach().requires_grad_(), drawn(40, 16, seed=1).float().detach()
    targets = torch.arange(7)
    with torch.autocast("cpu", torch.bfloat16):
        losses = head_losses(hidden, weight, None, targets, 3)
        expected = functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="none")
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected)
    (found,) = torch.autograd.grad(losses.sum(), hidden)
    (wanted,) = torch.autograd.grad(expected.sum(), hidden)
    assert (found - wanted).norm() < 1e-2 * wanted.norm()
