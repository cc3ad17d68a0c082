"""What a quantized base teaches: gradients are those of the weights that it computes with, whatever was asked of it before."""

import copy

import bitsandbytes
import pytest
import torch
from bitsandbytes.functional import has_avx512bf16

from adapterkit import Base, BaseLoadError
from tests.quantize.support import OPTIONS, ROWS, bits, four_bit_layers, gradients, worst_error, written_out
from tests.support import make_adapter

IDS = torch.arange(4, 20)[None]
packs = pytest.mark.skipif(not has_avx512bf16(), reason="bitsandbytes packs weights on CPUs with AVX512-BF16 only")


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
@pytest.mark.parametrize("quantize", ["nf4", "fp4"])
def test_gradients_are_those_of_the_weights_written_out(request, folder, quantize):
    folder = request.getfixturevalue(folder)
    base = Base(folder, quantize=quantize)
    assert worst_error(gradients(base), gradients(written_out(folder, base))) < 1e-4


def test_gradients_of_int8_are_those_of_the_weights_up_to_the_rounding_of_activations(llama_folder):
    base = Base(llama_folder, quantize="int8")
    assert worst_error(gradients(base), gradients(written_out(llama_folder, base))) < 5e-2


def test_half_precision_is_as_near_as_its_eight_bits_allow(llama_folder):
    base = Base(llama_folder, quantize="nf4", dtype="bfloat16")
    assert worst_error(gradients(base), gradients(written_out(llama_folder, base))) < 2e-2


def test_no_gradient_changes_by_what_was_asked_in_between(llama_folder):
    base = Base(llama_folder, quantize="nf4")
    before, state = gradients(base), bits(base.model)
    base.logits(IDS, adapter=make_adapter(base, rank=2))
    base.evaluate(ROWS[:2], max_new_tokens=2)
    after = gradients(base)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert worst_error(after, gradients(written_out(llama_folder, base))) < 1e-4
    assert bits(base.model) == state


@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
def test_evaluating_on_the_way_changes_nothing(llama_folder, quantize):
    options = {**OPTIONS, "packing": False, "dropout": 0.1}
    plain = Base(llama_folder, quantize=quantize).train(ROWS, **options)
    watched = Base(llama_folder, quantize=quantize).train(ROWS, eval_data=ROWS[:3], eval_steps=1, **options)
    assert watched.digest == plain.digest


def test_no_layer_is_left_to_pack_its_weights(llama_folder, monkeypatch):
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    assert not any(
        layer.support_avx512bf16_for_cpu for layer in four_bit_layers(Base(llama_folder, quantize="nf4").model)
    )
    monkeypatch.setattr("adapterkit.loading.keep_bits", lambda model: None)
    assert all(layer.support_avx512bf16_for_cpu for layer in four_bit_layers(Base(llama_folder, quantize="nf4").model))


@packs
def test_without_the_guard_gradients_are_wrong_and_nothing_says_so(llama_folder, monkeypatch):
    monkeypatch.setattr("adapterkit.loading.keep_bits", lambda model: None)
    base = Base(llama_folder, quantize="nf4")
    reference = gradients(written_out(llama_folder, base))
    base.logits(IDS)
    assert worst_error(gradients(base), reference) > 0.3


def test_a_quantized_model_object_is_guarded_too(llama_folder, tokenizer):
    model = copy.deepcopy(Base(llama_folder, quantize="nf4").model)
    for layer in four_bit_layers(model):
        layer.support_avx512bf16_for_cpu = has_avx512bf16()
    base = Base(model, tokenizer=tokenizer)
    assert base.quantized == "nf4"
    before = gradients(base)
    base.logits(IDS)
    after = gradients(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


@packs
def test_a_model_object_that_was_packed_already_is_refused(llama_folder, monkeypatch):
    with monkeypatch.context() as unguarded:
        unguarded.setattr("adapterkit.loading.keep_bits", lambda model: None)
        base = Base(llama_folder, quantize="nf4")
        base.logits(IDS)
    with pytest.raises(BaseLoadError, match="has packed this model's 4-bit weights"):
        _ = Base(base.model).sites


@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
def test_training_lowers_the_loss_and_leaves_every_bit_of_the_base(request, folder, quantize, tmp_path):
    base = Base(request.getfixturevalue(folder), quantize=quantize)
    base.logits(IDS)  # bitsandbytes puts the scales of int8 elsewhere in the first forward pass
    before = bits(base.model)
    adapter = base.train(ROWS, output=tmp_path, **{**OPTIONS, "max_steps": 8})
    losses = [base.evaluate(ROWS, adapter=one, compare=False, max_new_tokens=1)["loss"] for one in (None, adapter)]
    assert losses[1] < losses[0] - 0.5
    assert bits(base.model) == before
    assert {tensor.dtype for tensor in adapter.tensors.values()} == {torch.float32}
