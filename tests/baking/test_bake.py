"""Baking from disk to disk: what plain transformers loads answers as the base does with the adapters."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapterkit import Adapter, Base, Blend, LayerConfig, SelectionError, Stack
from adapterkit.artifact.manifest import Manifest
from adapterkit.baking import streaming, summing
from adapterkit.errors import ArtifactError, BaseLoadError, BaseMismatchError
from adapterkit.registry import Registry
from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_moe, tiny_qwen
from tests.support import make_adapter

CLOSE = {"atol": 1e-5, "rtol": 0}
IDS = torch.tensor([[5, 6, 7, 90], [1, 2, 3, 4]])
NO_TOKENIZER = SimpleNamespace(save_pretrained=lambda folder: None)
"""For folders without one."""
FAMILIES = {"llama": tiny_llama, "gpt2": tiny_gpt2, "qwen": tiny_qwen, "tied": lambda: tiny_llama(tied=True)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Tiny weights in several blocks, as large ones are computed."""
    monkeypatch.setattr(summing, "BLOCK", 300)
    monkeypatch.setattr(streaming, "BLOCK", 300)


def saved(family, folder, **options):
    """A base on disk, in several files, that is not loaded."""
    model = FAMILIES[family]()
    model.save_pretrained(folder, max_shard_size="20KB", **options)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return Base(folder, tokenizer=NO_TOKENIZER)


def stored(folder):
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


def answers(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        return model(IDS).logits


def lora(base, **options):
    return make_adapter(base, **{"rank": 3, "target_modules": "all-linear", "scale": 0.1, **options})


def ia3(base, seed=0):
    adapter = make_adapter(base, method="peft:ia3", seed=seed)
    tensors = {name: one + 1.0 for name, one in adapter.tensors.items()}
    return Adapter(adapter.method, adapter.config, tensors, adapter.manifest)


def full(base):
    return make_adapter(base, method="full", scale=0.02)


KINDS = {
    "lora": lora,
    "rslora": lambda base: lora(base, use_rslora=True, alpha=2.0),
    "tables": lambda base: lora(base, target_modules=["embed_tokens", "lm_head"]),
    "dora": lambda base: lora(base, use_dora=True),
    "ia3": ia3,
    "full": full,
    "tokens": lambda base: lora(base, trainable_token_indices=(5, 90)),
    "copies": lambda base: lora(base, modules_to_save=("norm",)),
    "vera": lambda base: make_adapter(base, method="peft:vera", target_modules=["o_proj"]),
    "oft": lambda base: make_adapter(base, method="peft:oft", scale=0.05),
}
BIASED = {
    "biases": lambda base: lora(base, bias="all"),
    **{name: KINDS[name] for name in ("dora", "ia3", "full", "tokens")},
}


def check(base, acting, folder):
    """Bake from the disk, and compare with what the base says that is loaded."""
    fresh = Base(base.source.location, tokenizer=NO_TOKENIZER)
    made = fresh.bake(acting, folder, max_shard_size="30KB")
    assert "_loaded" not in fresh.__dict__
    assert not made.whole
    torch.testing.assert_close(answers(made.folder), base.logits(IDS, adapter=acting), **CLOSE)
    assert not torch.allclose(answers(made.folder), base.logits(IDS, adapter=None), atol=1e-3)
    return made


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(("llama", kind) for kind in KINDS),
        *((family, kind) for family in ("gpt2", "qwen") for kind in BIASED),
        ("tied", "full"),
        ("tied", "tokens"),
    ],
)
def test_what_is_baked_answers_as_the_base_with_the_adapter(family, kind, tmp_path):
    base = saved(family, tmp_path / "base")
    check(base, {**KINDS, **BIASED}[kind](base), tmp_path / "whole")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_blends_are_baked_as_they_act(family, tmp_path):
    base = saved(family, tmp_path / "base")
    a, b, c = lora(base), lora(base, seed=1, use_dora=True), ia3(base, seed=2)
    made = check(base, Blend({a: 0.7, b: -0.3, c: 0.5}), tmp_path / "blend")
    assert [part["weight"] for part in made.parts] == [0.7, -0.3, 0.5]
    check(base, Stack(a, full(base), lora(base, seed=3, trainable_token_indices=(5,))), tmp_path / "stack")


def test_every_tensor_is_there_once_and_those_of_no_adapter_to_the_bit(tmp_path):
    base = saved("llama", tmp_path / "base")
    made = base.bake(lora(base, target_modules=["q_proj"]), tmp_path / "whole", max_shard_size="30KB")
    files, tensors = sorted(made.folder.glob("*.safetensors")), stored(made.folder)
    before = base.model.state_dict()
    assert sum(len(load_file(file)) for file in files) == len(tensors) == len(before)
    changed = {name for name, one in tensors.items() if not torch.equal(one, before[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    assert {layer.name for layer in made.layers} == changed
    assert max(file.stat().st_size for file in files[:-1]) < 33_000
    index = json.loads((made / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 21728, "total_size": 86912}
    for name, file in index["weight_map"].items():
        with safe_open(made / file, "pt") as opened:
            assert name in opened.keys()  # noqa: SIM118
            assert opened.metadata() == {"format": "pt"}


def test_one_file_is_named_as_one(tmp_path):
    base = saved("gpt2", tmp_path / "base")
    made = base.bake(lora(base), tmp_path / "whole")
    assert [path.name for path in made.folder.glob("*.safetensors*")] == ["model.safetensors"]


def test_a_checkpoint_of_the_inner_model_keeps_its_names(tmp_path):
    base = saved("gpt2", tmp_path / "base")
    adapter = lora(base, bias="all")
    tiny_gpt2().transformer.save_pretrained(tmp_path / "inner")
    inner = Base(tmp_path / "inner", tokenizer=NO_TOKENIZER)
    made = inner.bake(adapter, tmp_path / "whole")
    assert not made.whole
    assert "h.0.attn.c_attn.weight" in load_file(made / "model.safetensors")
    torch.testing.assert_close(answers(made.folder), base.logits(IDS, adapter=adapter), **CLOSE)


# -- tied weights -----------------------------------------------------------------------------------------------------


def with_both(folder, change):
    """A tied base whose files hold the head's weight, too."""
    tiny_llama(tied=True).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + change}, folder / "model.safetensors"
    )
    return Base(folder, tokenizer=NO_TOKENIZER)


def test_a_tied_head_that_is_stored_too_is_written_once(tmp_path):
    base = with_both(tmp_path / "base", 0.0)
    made = check(base, full(base), tmp_path / "whole")
    assert "lm_head.weight" not in stored(made.folder)
    assert json.loads((made / "config.json").read_text())["tie_word_embeddings"]


def test_a_head_that_is_tied_in_name_only_is_baked_by_itself(tmp_path):
    base = with_both(tmp_path / "base", 0.1)
    made = check(base, lora(base, target_modules=["lm_head"]), tmp_path / "whole")
    assert [layer.name for layer in made.layers] == ["lm_head.weight"]


@pytest.mark.parametrize("target", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]])
def test_one_of_two_tied_layers_cannot_be_changed_alone_nor_each_otherwise(target, tmp_path):
    base = saved("tied", tmp_path / "base")
    with pytest.raises(SelectionError, match="shares its weight with"):
        base.bake(lora(base, target_modules=target), tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_two_tied_layers_that_are_changed_alike_are_baked(tmp_path):
    base = saved("tied", tmp_path / "base")
    adapter = lora(base, target_modules=["lm_head", "embed_tokens"])
    tensors = dict(adapter.tensors)
    tensors["lm_head.lora_A.weight"] = tensors["model.embed_tokens.lora_embedding_B"].T.contiguous()
    tensors["lm_head.lora_B.weight"] = tensors["model.embed_tokens.lora_embedding_A"].T.contiguous()
    check(base, Adapter("lora", adapter.config, tensors, adapter.manifest), tmp_path / "whole")


# -- mixtures of experts ----------------------------------------------------------------------------------------------


def test_experts_that_are_stored_one_by_one_are_copied_where_no_adapter_acts(tmp_path):
    tiny_moe().save_pretrained(tmp_path / "base")
    base = Base(tmp_path / "base", tokenizer=NO_TOKENIZER)
    made = check(base, lora(base, target_modules=["q_proj", "gate_proj"]), tmp_path / "whole")
    assert "model.layers.0.mlp.experts.3.down_proj.weight" in stored(made.folder)


def test_experts_that_are_changed_are_baked_in_memory_and_the_report_says_so(tmp_path, caplog):
    tiny_moe().save_pretrained(tmp_path / "base")
    base = Base(tmp_path / "base", tokenizer=NO_TOKENIZER)
    adapter = lora(base, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"])
    made = base.bake(adapter, tmp_path / "whole")
    assert "experts.gate_up_proj' is stored in other pieces" in made.whole
    assert "is loaded whole to be baked" in caplog.text
    assert not made.to_json()["streamed"]
    assert "model.layers.0.mlp.experts.3.down_proj.weight" in load_file(made / "model.safetensors")
    torch.testing.assert_close(answers(made.folder), base.logits(IDS, adapter=adapter), **CLOSE)


def test_a_version_of_transformers_that_does_not_say_what_it_renames_has_the_base_loaded(tmp_path, monkeypatch):
    base = saved("llama", tmp_path / "base")
    adapter = lora(base)
    monkeypatch.delattr(importlib.import_module("transformers.conversion_mapping"), "get_model_conversion_mapping")
    made = base.bake(adapter, tmp_path / "whole")
    assert made.whole.startswith("this version of transformers does not say")
    assert {layer.name for layer in made.layers} == {f"{name}.weight" for name in adapter_sites(adapter)}


def adapter_sites(adapter):
    return {name.partition(".lora_")[0] for name in adapter.tensors}


# -- what is refused --------------------------------------------------------------------------------------------------


def test_an_adapter_of_another_base_is_refused(tmp_path):
    base, other = saved("llama", tmp_path / "base"), Base(tiny_llama(seed=1))
    with pytest.raises(BaseMismatchError, match="made for another base"):
        base.bake(lora(other), tmp_path / "whole")
    nameless = lora(Base(tiny_llama(intermediate_size=64)))
    nameless = Adapter(nameless.method, nameless.config, nameless.tensors, Manifest())
    with pytest.raises(ArtifactError, match="of another shape"):
        base.bake(nameless, tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_what_puts_tokens_before_the_sequence_is_refused_by_name(method, tmp_path):
    base = saved("llama", tmp_path / "base")
    adapter = make_adapter(base, method=method)
    with pytest.raises(SelectionError, match=f"the {method} adapter {adapter.digest[:12]} puts tokens before"):
        base.bake(Stack(lora(base), adapter), tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


OWN = """
import torch
from adapterkit import LayerConfig, LayerMethod, hookimpl


class Factors(torch.nn.PReLU):
    def forward(self, x, y):
        return y * self.weight


@hookimpl
def adapterkit_methods():
    yield LayerMethod("own", LayerConfig, lambda site, config: Factors(site.out_features, init=1.0))
"""


def test_a_method_without_effects_is_refused_by_name(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    registry = Registry()
    registry.add(tmp_path / "own.py")
    tiny_llama().save_pretrained(tmp_path / "base")
    base = Base(tmp_path / "base", tokenizer=NO_TOKENIZER, registry=registry)
    sites = {site.name: site for site in base.sites if site.name.endswith("q_proj")}
    config = LayerConfig(target_modules=("q_proj",))
    tensors = {f"{name}.weight": torch.full((site.out_features,), 2.0) for name, site in sites.items()}
    adapter = base.load(Adapter("own", config, tensors, Manifest(base=base.reference)))
    with pytest.raises(SelectionError, match=r"the own adapter .* acts through its own layers"):
        base.bake(adapter, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_method_that_made_its_layers_of_the_weights_has_them_loaded(tmp_path):
    base = saved("llama", tmp_path / "base")
    adapter = make_adapter(base, method="peft:osf")
    made = base.bake(adapter, tmp_path / "whole")
    assert made.whole == "method 'peft:osf' makes its layers of the weights"
    torch.testing.assert_close(answers(made.folder), base.logits(IDS, adapter=adapter), **CLOSE)


def test_a_base_without_one_of_its_weights_is_refused(tmp_path):
    base = saved("gpt2", tmp_path / "base")
    adapter = lora(base)
    tiny_gpt2().save_pretrained(tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, tmp_path / "cut" / "model.safetensors")
    with pytest.raises(BaseLoadError, match=r"lacks 1 of the weights .*c_fc"):
        Base(tmp_path / "cut").bake(adapter, tmp_path / "whole")
