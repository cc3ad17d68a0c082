"""Every option of LoRA against PEFT, in both directions, and what holds for all of them."""

import peft
import pytest
import torch

from adapterkit import Base
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers, plan_of_layers
from tests.plugins.lora_cases import (
    FAMILIES,
    OPTIONS,
    TYING,
    loaded_by_peft,
    moved,
    options_for,
    peft_model,
    saved_by_peft,
)
from tests.support import EXAMPLE_BASE, make_adapter, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}


def ours(family, options):
    """The same options as we call them."""
    return {"rank": 4, "alpha": 6.0, **options_for(family, options)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_we_load_what_peft_saves_and_say_the_same(family, options, ids, tmp_path):
    model = peft_model(family, options)
    folder = saved_by_peft(model, tmp_path / "theirs")
    base = Base(FAMILIES[family]())
    before = state_digest(base.model)
    adapter = base.load(folder)
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)
    again = base.load(adapter.save(tmp_path / "ours"))
    assert again == adapter
    assert state_digest(base.model) == before
    torch.testing.assert_close(loaded_by_peft(family, tmp_path / "ours")(ids).logits, model(ids).logits, **CLOSE)
    assert not torch.allclose(base.logits(ids), model(ids).logits, atol=1e-2), "the adapter does nothing"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_peft_loads_what_we_save_and_says_the_same(family, options, ids, tmp_path):
    base = Base(FAMILIES[family]())
    adapter = make_adapter(base, **ours(family, options))
    folder = adapter.save(tmp_path / "ours")
    torch.testing.assert_close(loaded_by_peft(family, folder)(ids).logits, base.logits(ids, adapter=adapter), **CLOSE)
    mixed = base.logits(ids, adapter=[None, adapter, None, adapter])
    torch.testing.assert_close(mixed[1::2], base.logits(ids, adapter=adapter)[1::2], **CLOSE)
    assert torch.equal(mixed[::2], base.logits(ids)[::2])


@pytest.mark.parametrize("options", TYING.values(), ids=TYING.keys())
def test_an_embedding_that_peft_ties_to_the_head_is_read(options, ids, tmp_path):
    model = peft_model("tied", {**options, "ensure_weight_tying": True})
    base = Base(FAMILIES["tied"]())
    adapter = base.load(saved_by_peft(model, tmp_path / "theirs"))
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)
    folder = adapter.save(tmp_path / "ours")
    torch.testing.assert_close(loaded_by_peft("tied", folder)(ids).logits, model(ids).logits, **CLOSE)


def loss(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def our_name(name):
    """What PEFT's parameter is called here."""
    name = name.removeprefix("base_model.model.").replace(".default", "").replace(".modules_to_save", "")
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_gradients_are_pefts(family, options, ids, tmp_path):
    model = peft_model(family, options)
    base = Base(FAMILIES[family]())
    adapter = base.load(saved_by_peft(model, tmp_path / "theirs"))
    layers = build_layers(default_registry(), default_registry().method("lora"), adapter.config, base.sites)
    for site, layer in layers.items():
        layer.load_state_dict({name: adapter.tensors[f"{site}.{name}"] for name in layer.state_dict()})
    loss(model(ids).logits, ids).backward()
    with base.runtime.override(plan_of_layers("lora", layers)):
        loss(base.model(ids).logits, ids).backward()
    theirs = {our_name(name): one.grad for name, one in model.named_parameters() if one.requires_grad}
    mine = {name.removeprefix("layers."): one.grad for name, one in layers.named_parameters() if one.requires_grad}
    assert set(mine) == set(theirs)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_dora_reads_the_weights_of_a_quantized_base(tmp_path):
    pytest.importorskip("bitsandbytes")
    base, other = (Base(EXAMPLE_BASE, quantize="nf4") for _ in range(2))
    before = state_digest(base.model)
    ids = torch.randint(1, 400, (2, 9), generator=torch.Generator().manual_seed(7))
    other.detach()  # a model as PEFT wants it, with nothing of ours on it
    config = peft.LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = moved(peft.get_peft_model(other._loaded.model, config).eval(), 0.05)
    adapter = base.load(saved_by_peft(model, tmp_path / "theirs"))
    with torch.no_grad():
        ours, theirs, bare = base.logits(ids, adapter=adapter), model(ids).logits, base.logits(ids)
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)
    assert not torch.allclose(bare, theirs, atol=1e-2)
    assert state_digest(base.model) == before


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_dora_starts_as_a_quantized_base(quantize):
    pytest.importorskip("bitsandbytes")
    base, registry = Base(EXAMPLE_BASE, quantize=quantize), default_registry()
    before = state_digest(base.model)
    method = registry.method("lora")
    config = registry.call("configure", method, config=method.config(use_dora=True), sites=base.sites)
    layers = build_layers(registry, method, config, base.sites)
    ids = torch.randint(1, 400, (2, 9), generator=torch.Generator().manual_seed(7))
    with base.runtime.override(plan_of_layers("lora", layers)), torch.no_grad():
        assert torch.equal(base.model(ids).logits, base.logits(ids))
    assert state_digest(base.model) == before
