"""Files of the bridge: PEFT reads what adapterkit writes, and the other way round."""

import json
import warnings

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from adapterkit import Adapter, ArtifactError, Base
from adapterkit.registry import default_registry
from adapterkit.resident import expected_tensors
from adapterkit.testing import tiny_llama
from tests.plugins.bridge_cases import (
    CLOSE,
    FAMILIES,
    ON_BOTH,
    ON_LAYERS,
    SOFT,
    WORKING,
    adapter_of,
    answers_of_peft,
    fresh_layers,
    loaded_by_peft,
    method_of,
    saved,
)
from tests.plugins.lora_cases import moved


@pytest.fixture(scope="module")
def llama():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def ids():
    return torch.randint(1, 97, (4, 9), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(("family", "peft_type"), ON_BOTH)
def test_peft_loads_what_we_save_and_says_the_same(ids, family, peft_type):
    base, folder = Base(FAMILIES[family]()), saved(peft_type, family)
    adapter = base.load(Adapter.load(folder, registry=default_registry()))
    model, found = loaded_by_peft(folder, family)
    assert peft_type in SOFT or not found.unexpected_keys  # PEFT puts a soft prompt into its place apart from the rest
    written, theirs = peft.load_peft_weights(str(folder)), peft.get_peft_model_state_dict(model)
    # PEFT writes RandLoRA's shared matrices once more for each layer: the same tensors, under other names
    aliases = {
        key for key in theirs if key.startswith("base_model.model.") and key.endswith(("randlora_A", "randlora_B"))
    }
    assert set(written) == set(theirs) - aliases
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in written.items())
    ours = answers_of_peft(model, ids)
    torch.testing.assert_close(ours, base.logits(ids, adapter=adapter), **CLOSE)
    assert not torch.allclose(ours, base.logits(ids), atol=1e-3), "the adapter does nothing: the test is blind"


@pytest.mark.parametrize(("family", "peft_type"), ON_BOTH)
def test_we_load_what_peft_saves_and_say_the_same(ids, tmp_path, family, peft_type):
    model, _ = loaded_by_peft(saved(peft_type, family), family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "theirs")
    base = Base(FAMILIES[family]())
    adapter = base.load(tmp_path / "theirs")
    torch.testing.assert_close(base.logits(ids, adapter=adapter), answers_of_peft(model, ids), **CLOSE)
    # and once more through our own files
    again = Adapter.load(adapter.save(tmp_path / "ours"))
    assert again == adapter
    assert base.load(again) == adapter


@pytest.mark.parametrize("peft_type", WORKING)
def test_it_comes_back_bit_for_bit(tmp_path, llama, peft_type):
    adapter = Adapter.load(saved(peft_type, "llama"))
    folder = adapter.save(tmp_path / "again")
    assert Adapter.load(folder) == adapter
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (saved(peft_type, "llama") / weights).read_bytes()
    method = method_of(adapter.method.removeprefix("peft:").upper())
    assert expected_tensors(default_registry(), method, adapter.config, llama.sites) == {
        name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()
    }


@pytest.mark.parametrize("peft_type", sorted({*ON_LAYERS} - {"LN_TUNING", "IA3"}))
def test_its_configuration_is_one_that_peft_makes(peft_type):
    written = json.loads((saved(peft_type, "llama") / "adapter_config.json").read_text())
    theirs = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type].from_peft_type(**written).to_dict()
    same = {name: sorted(value) if isinstance(value, set) else value for name, value in theirs.items()}
    nested = {"peft_version", "runtime_config"}
    assert {name: written[name] for name in written} == {name: same[name] for name in written if name not in nested}


def test_what_all_layers_share_is_held_once(llama):
    adapter = adapter_of("VERA", llama)
    assert sorted(name for name in adapter.tensors if "vera_A" in name) == ["shared.vera_A"]
    layers, _ = fresh_layers("VERA", llama)
    projections = {id(layer.tuner.vera_A) for name, layer in layers.items() if name != "shared"}
    assert projections == {id(layers["shared"].held.vera_A)}


def test_a_file_whose_layers_share_different_things_is_refused(tmp_path):
    model, _ = loaded_by_peft(saved("RANDLORA", "llama"), "llama")
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    key = next(key for key in tensors if key.endswith("q_proj.randlora_A"))
    save_file({**tensors, key: tensors[key] + 1.0}, folder / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match="is not the one that all layers share"):
        Adapter.load(folder)


@pytest.mark.parametrize(
    ("peft_type", "field", "value"),
    [
        ("VERA", "save_projection", False),
        ("OFT", "coft", True),
        ("LOHA", "modules_to_save", ["lm_head"]),
        ("LORA", "bias", "all"),
        ("LORA", "use_dora", True),
        ("VBLORA", "save_only_topk_weights", True),
        ("OFT", "a_field_of_tomorrow", "yes"),
    ],
)
def test_a_file_that_asks_for_more_is_refused_by_name(tmp_path, peft_type, field, value):
    folder = Adapter.load(saved(peft_type, "llama")).save(tmp_path / "adapter")
    manifest = json.loads((folder / "adapterkit.json").read_text())
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ArtifactError):
        Adapter.load(folder)
    with pytest.raises(ValueError, match=field):
        default_registry().method(manifest["method"]).from_peft(json.loads(file.read_text()))


def test_ia3s_feedforward_modules_may_be_a_regular_expression(ids, tmp_path):
    config = peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=r".*(k_proj|down_proj)", feedforward_modules=r".*\.down_proj"
    )
    model = moved(peft.get_peft_model(tiny_llama(), config).eval())
    model.save_pretrained(tmp_path / "theirs")
    base = Base(tiny_llama())
    adapter = base.load(tmp_path / "theirs")
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)
    again, _ = loaded_by_peft(adapter.save(tmp_path / "ours"), "llama")
    torch.testing.assert_close(again(ids).logits, model(ids).logits, **CLOSE)
    assert not torch.allclose(model(ids).logits, base.logits(ids), atol=1e-3), "the adapter does nothing"


def test_a_method_of_our_own_answers_to_a_file_of_peft_before_the_bridge(tmp_path):
    for peft_type, expected in (("LORA", "lora"), ("PROMPT_TUNING", "prompt_tuning"), ("P_TUNING", "p_tuning")):
        folder = Adapter.load(saved(peft_type, "llama")).save(tmp_path / peft_type)
        (folder / "adapterkit.json").unlink()
        assert Adapter.load(folder).method == expected
