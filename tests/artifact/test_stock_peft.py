"""PEFT reads what adapterkit writes, and the other way round."""

import json

import pytest
import torch

from adapterkit import Adapter, ArtifactError, hookimpl
from adapterkit.artifact.loader import read_artifact
from adapterkit.registry import Registry
from adapterkit.testing import tiny_llama
from adapterkit_lora.method import LoraMethod
from tests.artifact.adapter_folders import join, make_adapter, split, take

peft = pytest.importorskip("peft")
IDS = torch.arange(12).reshape(2, 6)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@torch.no_grad()
def with_factors_added(adapter):
    """The tiny model with ``alpha / rank * B @ A`` added to its weights, done by hand."""
    model = tiny_llama()
    for name, down in adapter.tensors.items():
        if name.endswith("lora_A.weight"):
            site = name.removesuffix(".lora_A.weight")
            up = adapter.tensors[f"{site}.lora_B.weight"]
            model.get_submodule(site).weight += adapter.config.alpha / adapter.config.rank * up @ down
    return model


def test_peft_loads_it_with_no_key_missing_or_left_over(original, adapter):
    model = peft.PeftModel.from_pretrained(tiny_llama(), original)
    result = model.load_adapter(original, "again")
    assert not [key for key in result.missing_keys if "lora_" in key]
    assert not result.unexpected_keys
    torch.testing.assert_close(logits(model), logits(with_factors_added(adapter)))


def test_peft_writes_the_same_weights_file_of_it(original, tmp_path):
    peft.PeftModel.from_pretrained(tiny_llama(), original).save_pretrained(tmp_path)
    name = "adapter_model.safetensors"
    assert (tmp_path / name).read_bytes() == (original / name).read_bytes()


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}]
)
def test_what_peft_writes_is_read(tmp_path, registry, options):
    base = tiny_llama()
    base.name_or_path = "org/tiny"
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options
    )
    theirs = peft.get_peft_model(base, config)
    theirs.save_pretrained(tmp_path / "theirs")
    adapter = take(tmp_path / "theirs", tiny_llama(), registry)
    assert adapter.manifest.base.name == "org/tiny"
    assert adapter.manifest.versions == {"peft": peft.__version__}
    ours = adapter.save(tmp_path / "ours", registry=registry)
    assert take(ours, tiny_llama(), registry) == adapter
    torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(tiny_llama(), ours)), logits(theirs))


def test_its_configuration_holds_only_fields_that_peft_knows(original):
    ours = set(json.loads((original / "adapter_config.json").read_text()))
    assert ours <= set(peft.LoraConfig().to_dict())


def test_an_alignment_that_is_not_ours_is_read(tmp_path, model, registry, original):
    # safetensors pads its header to eight bytes; others need not
    header, data = split(original)
    (tmp_path / "adapter_config.json").write_bytes((original / "adapter_config.json").read_bytes())
    for padding in range(4):
        join(tmp_path, json.dumps(header) + " " * padding, data)
        _, _, tensors, *_ = read_artifact(tmp_path, registry)
        assert all(torch.equal(tensor, make_adapter(model).tensors[name]) for name, tensor in tensors.items())


def test_numbers_at_odd_bytes_are_read(tmp_path, registry, original):
    (tmp_path / "adapter_config.json").write_bytes((original / "adapter_config.json").read_bytes())
    half, whole = torch.tensor([1.5], dtype=torch.float16), torch.tensor([2.5, -1.0])
    header = {
        "base_model.model.a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "base_model.model.b": {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]},
    }
    join(tmp_path, header, half.numpy().tobytes() + whole.numpy().tobytes())
    tensors = Adapter.load(tmp_path, registry=registry).tensors
    assert torch.equal(tensors["a"], half)
    assert torch.equal(tensors["b"], whole)


class Loras:
    """A plugin whose methods all write PEFT's LoRA files."""

    def __init__(self, *names):
        self.names = names

    @hookimpl
    def adapterkit_methods(self):
        return [LoraMethod(name=name) for name in self.names]


def test_of_several_methods_that_read_it_the_namesake_does(stock):
    registry = Registry(found=(), environ={})
    registry.add(Loras("four_bit_lora", "lora"))
    assert Adapter.load(stock, registry=registry).method == "lora"


def test_several_methods_that_could_read_it_are_named(stock):
    registry = Registry(found=(), environ={})
    registry.add(Loras("four_bit_lora", "other_lora"))
    with pytest.raises(ArtifactError, match="peft_type 'LORA' is answered by four_bit_lora, other_lora"):
        Adapter.load(stock, registry=registry)
