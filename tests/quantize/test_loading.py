"""Bases in 4 and 8 bits: what is quantized and what is not, and what is refused."""

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from adapterkit import Base, BaseLoadError
from adapterkit.fingerprint import same_base
from adapterkit.quantization import bytes_of, settings
from adapterkit.testing import tiny_llama
from tests.quantize.support import OPTIONS, ROWS, quantized_layers
from tests.support import EXAMPLE_BASE, make_adapter

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
IDS = torch.arange(4, 20)[None]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
def test_linear_layers_but_the_head_are_quantized_and_nothing_else_changes(llama_folder, quantize, dtype):
    plain = Base(llama_folder, dtype=dtype)
    base = Base(llama_folder, quantize=quantize, dtype=dtype)
    layers = quantized_layers(base.model)
    assert len(layers) == 14
    kept = {name: one for name, one in base.model.named_parameters() if name.removesuffix(".weight") not in layers}
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} <= set(kept)
    for name, parameter in kept.items():
        original = plain.model.get_parameter(name)
        assert parameter.dtype == original.dtype == getattr(torch, dtype)
        assert torch.equal(parameter, original)
    assert base.model.dtype == getattr(torch, dtype)
    assert {getattr(layer, "compute_dtype", base.model.dtype) for layer in layers.values()} == {base.model.dtype}
    assert base.logits(IDS).dtype == getattr(torch, dtype)
    error = (base.logits(IDS) - plain.logits(IDS)).norm() / plain.logits(IDS).norm()
    assert error < 0.5, "the same base, about"


def test_embeddings_and_head_of_an_8b_base_stay_in_half_precision():
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_8B)).to(torch.bfloat16)
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    quantizer = Bnb4BitHfQuantizer(settings("nf4", double_quant=True))
    quantizer._process_model_before_weight_loading(model, device_map=None)
    assert len(quantized_layers(model)) == 7 * 32
    kept = [model.model.embed_tokens.weight, model.lm_head.weight]
    assert all(weight.dtype == torch.bfloat16 and weight.dim() == 2 for weight in kept)
    upcast = sum(weight.numel() * 4 for weight in kept)
    assert upcast - sum(weight.nbytes for weight in kept) >= 1.9 * 2**30


def test_the_memory_of_weights_counts_what_they_are_quantized_by(llama_folder):
    sizes = {
        (quantize, double): bytes_of(Base(llama_folder, quantize=quantize, double_quant=double).model)
        for quantize, double in ((None, True), ("int8", True), ("nf4", False))
    }
    assert sizes[None, True] > sizes["int8", True] > sizes["nf4", False]
    linear = 2 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 192)
    assert sizes[None, True] - sizes["nf4", False] == pytest.approx(linear * (4 - 0.5 - 4 / 64), rel=0.01)


def test_what_a_base_is_in(llama_folder):
    assert Base(llama_folder).quantized == ""
    lazy = Base(llama_folder, quantize="fp4")
    assert (lazy.quantized, "_loaded" in vars(lazy)) == ("fp4", False)
    assert Base(tiny_llama()).quantized == ""
    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(llama_folder, quantization_config=config, device_map={"": "cpu"})
    assert Base(model).quantized == "int8"


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_an_adapter_made_on_one_acts_on_the_other(request, folder, quantize):
    folder = request.getfixturevalue(folder)
    plain, base = Base(folder), Base(folder, quantize=quantize)
    assert plain.reference.fingerprint.partition(".")[0] == base.reference.fingerprint.partition(".")[0]
    assert same_base(plain.reference.fingerprint, base.reference.fingerprint)
    for made_on, used_on in ((base, plain), (plain, base)):
        adapter = used_on.load(make_adapter(made_on, rank=2))
        assert not torch.equal(used_on.logits(IDS, adapter=adapter), used_on.logits(IDS))


def test_the_example_base_answers_and_evaluates_in_four_bits():
    base = Base(EXAMPLE_BASE, quantize="nf4")
    adapter = make_adapter(base, rank=2, scale=0.05)
    assert len(base.generate(["Hello", "How are you?"], adapter=[adapter, None], max_new_tokens=3)) == 2
    assert base.evaluate(ROWS[:2], adapter=adapter, max_new_tokens=2)["loss"] > 0


def test_a_checkpoint_that_is_stored_quantized_is_loaded_as_it_is(llama_folder, tmp_path, tokenizer):
    Base(llama_folder, quantize="nf4").model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base = Base(tmp_path)
    assert base.quantized == "nf4"
    assert torch.equal(base.logits(IDS), Base(llama_folder, quantize="nf4").logits(IDS))
    assert Base(tmp_path).train(ROWS, method="qlora", **OPTIONS).manifest.training["quantize"] == "nf4"
    with pytest.raises(BaseLoadError, match="is stored in nf4, and quantize='int8' would do nothing: leave it out"):
        _ = Base(tmp_path, quantize="int8").sites


def test_a_format_that_is_not_there_is_refused_with_what_is(llama_folder):
    with pytest.raises(BaseLoadError, match="quantize='nf5' is not one of nf4, fp4, int8; did you mean 'nf4'"):
        _ = Base(llama_folder, quantize="nf5").sites


def test_quantize_says_nothing_to_a_model_object():
    with pytest.raises(BaseLoadError, match="a model object is used as it is, and quantize='nf4' would do nothing"):
        _ = Base(tiny_llama(), quantize="nf4").sites


def test_without_bitsandbytes_the_cure_is_named(llama_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BaseLoadError, match=r"needs bitsandbytes.*pip install 'adapterkit\[quantize\]'") as caught:
        _ = Base(llama_folder, quantize="nf4").sites
    assert len(str(caught.value)) < 300
