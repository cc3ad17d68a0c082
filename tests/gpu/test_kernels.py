"""Triton's kernels beside the formulas in float64, on random numbers of awkward sizes."""

import logging

import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer

from adapterkit import Base
from adapterkit.kernels import head_losses, rotate, silu_mul
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, state_digest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TYPES = pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
ROWS = [{"text": " ".join(str(number * n) for number in range(40))} for n in range(1, 17)]


def drawn(*shape, dtype):
    return torch.randn(shape, device="cuda", dtype=dtype)


def off(found, wanted):
    """How far, as a part of the size; not a number where anything is none."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def compare(fast, formula, inputs, bound):
    """Outputs and gradients of both, the formula's in float64."""
    mine, exact = (
        [one.detach().to(kind).requires_grad_() for one in inputs] for kind in (inputs[0].dtype, torch.double)
    )
    out, expected = fast(*mine), formula(*exact)
    grad = torch.randn_like(expected)
    found = torch.autograd.grad(out, mine, grad.to(out.dtype))
    wanted = torch.autograd.grad(expected, exact, grad.to(out.dtype).double())
    assert off(out, expected) < bound
    assert all(off(*pair) < bound for pair in zip(found, wanted, strict=True))


@TYPES
@pytest.mark.parametrize("shape", [(3, 5, 1001), (4, 2048)])
def test_gated_layers(dtype, bound, shape):
    inputs = [drawn(*shape, dtype=dtype) for _ in range(2)]
    compare(silu_mul, lambda gate, up: functional.silu(gate) * up, inputs, bound)


@TYPES
@pytest.mark.parametrize(("heads", "size", "rows"), [(32, 128, 1), (5, 24, 2)])
def test_rotary_positions(dtype, bound, heads, size, rows):
    x = drawn(2, 37, heads, size, dtype=dtype).transpose(1, 2)
    cos, sin = (drawn(rows, 37, size, dtype=dtype) for _ in range(2))

    def formula(x):
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
        return x * cos[:, None].double() + turned * sin[:, None].double()

    compare(lambda x: rotate(x, cos, sin), formula, [x], bound)


@TYPES
@pytest.mark.parametrize("vocabulary", [4096, 128_256, 50_257])
def test_losses_after_a_frozen_head(dtype, bound, vocabulary):
    weight, targets = drawn(vocabulary, 64, dtype=dtype), torch.randint(vocabulary, (77,), device="cuda")

    def formula(hidden):
        # in float64, of logits as they are rounded
        logits = functional.linear(hidden.to(dtype), weight).double()
        return functional.cross_entropy(logits, targets, reduction="none")

    def fast(hidden):
        return head_losses(hidden, weight, None, targets, 32).double()

    compare(fast, formula, [drawn(77, 64, dtype=dtype) / 4], bound)


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"packing": False}])
def test_training_learns_the_same_with_them_and_leaves_every_bit_of_the_base(options, caplog):
    def trained(**more):
        model = tiny_llama(vocab_size=8192, max_position_embeddings=128, hidden_size=64, intermediate_size=128)
        base = Base(model.to("cuda"), tokenizer=AutoTokenizer.from_pretrained(EXAMPLE_BASE))
        before = state_digest(base.model)
        adapter = base.train(ROWS, bf16=False, rank=4, learning_rate=1e-2, max_steps=4, **options, **more)
        assert state_digest(base.model) == before
        return adapter

    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        fast, plain = trained(), trained(use_fused_kernels=False)
    assert not [record for record in caplog.records if "kernel" in record.getMessage()]
    assert fast.digest != plain.digest, "the kernels were not used"
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(fast.tensors[name], tensor, atol=1e-3, rtol=0)
