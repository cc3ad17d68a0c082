"""Bases in 4 and 8 bits on an accelerator, where their dtype is the checkpoint's own."""

import pytest
import torch

from adapterkit import Base
from tests.quantize.conftest import llama_folder, tokenizer  # noqa: F401 - fixtures
from tests.quantize.support import OPTIONS, ROWS, bits, gradients, worst_error, written_out

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("quantize", ["nf4", "fp4"])
def test_gradients_are_those_of_the_weights_written_out(llama_folder, quantize, dtype, bound):  # noqa: F811
    base = Base(llama_folder, quantize=quantize, dtype=dtype)
    reference = written_out(llama_folder, base)
    reference.model.to(base.device)
    assert worst_error(gradients(base), gradients(reference)) < bound


@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
def test_training_lowers_the_loss_and_leaves_every_bit_of_the_base(llama_folder, quantize):  # noqa: F811
    base = Base(llama_folder, quantize=quantize, dtype="bfloat16")
    base.evaluate(ROWS[:2], max_new_tokens=1)
    before = bits(base.model)
    adapter = base.train(ROWS, method="qlora", quantize=quantize, **{**OPTIONS, "max_steps": 8})
    losses = [base.evaluate(ROWS, adapter=one, compare=False, max_new_tokens=1)["loss"] for one in (None, adapter)]
    assert losses[1] < losses[0] - 0.5
    assert bits(base.model) == before


def test_activations_in_the_hosts_memory_make_the_same_adapter(llama_folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr("adapterkit.train.offload.LEAST_BYTES", 64)
    made = [
        Base(llama_folder, quantize="nf4").train(ROWS, method="qlora", activation_offload=offload, **OPTIONS)
        for offload in (False, True)
    ]
    assert all(torch.allclose(made[0].tensors[name], made[1].tensors[name], atol=1e-5) for name in made[0].tensors)
