"""The bridge: PEFT's methods act at adapterkit's sites, beside anything else, and their files are PEFT's own."""

import json
import subprocess
import sys

import attrs
import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from adapterkit import Adapter, ArtifactError, Base, ConfigError, TargetError
from adapterkit.registry import Registry, default_registry
from adapterkit.resident import plan_of_layers
from adapterkit.testing import ROWS, tiny_gpt2, tiny_llama, tiny_tokenizer
from adapterkit_peft.catalogue import KINDS, PROMPTS, REFUSED
from tests.plugins import peft_fields
from tests.plugins.bridge_cases import (
    CLOSE,
    FAMILIES,
    MAIN,
    ON_LAYERS,
    OPTIONS,
    SOFT,
    WORKING,
    adapter_of,
    configured,
    fresh_layers,
    method_of,
    moved_layers,
    name_of,
)
from tests.support import make_adapter, state_digest


@pytest.fixture(scope="module")
def llama():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def ids():
    return torch.randint(1, 97, (4, 9), generator=torch.Generator().manual_seed(7))


def with_layers(base, method, layers, ids):
    with base.runtime.override(plan_of_layers(method.name, layers)), torch.no_grad():
        return base.model(ids).logits


# -- what there is ----------------------------------------------------------------------------------------------------


def test_every_peft_type_is_a_method_that_works_or_says_why_not():
    known = {*KINDS, *PROMPTS, *REFUSED}
    assert known == {one.value for one in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert len(known) == len(KINDS) + len(PROMPTS) + len(REFUSED)
    assert all(method_of(name).peft_type == name for name in known)


def test_the_options_are_those_of_the_peft_that_is_installed():
    assert peft_fields.FILE.read_text(encoding="utf-8") == peft_fields.text(), (
        "run `python tests/plugins/peft_fields.py`, and look at what PEFT changed"
    )


def test_knowing_the_methods_needs_no_peft():
    code = (
        "import sys; from adapterkit import Registry; registry = Registry(); registry.load_all()\n"
        "assert 'peft' not in sys.modules\n"
        "sys.modules['peft'] = None; import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'peft' else real(name, *more)\n"
        "from adapterkit import Base, ConfigError\n"
        "from adapterkit.testing import ROWS, tiny_llama, tiny_tokenizer\n"
        "base = Base(tiny_llama(), tokenizer=tiny_tokenizer(), registry=registry)\n"
        "base.train(list(ROWS), method='lora', rank=1, max_steps=1)\n"
        "try: base.train(list(ROWS), method='peft:vera', r=2)\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert "pip install 'adapterkit[peft]'" in done.stdout, done.stderr


@pytest.mark.parametrize("peft_type", sorted(REFUSED))
def test_what_does_not_fit_says_why(llama, tmp_path, peft_type):
    with pytest.raises(ConfigError, match="is not done here") as caught:
        configured(peft_type, llama)
    assert REFUSED[peft_type] in str(caught.value)
    if peft_type == "PREFIX_TUNING":  # read by adapterkit's own
        return
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": peft_type}))
    with pytest.raises(ArtifactError) as refused:
        Adapter.load(tmp_path)
    assert REFUSED[peft_type] in str(refused.value)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_a_start_that_rewrites_the_base_is_refused_by_name(llama, start):
    with pytest.raises(ConfigError, match=rf"{start}.*rewrites the base's own weights; see what method='lora'"):
        configured("LORA", llama, init_lora_weights=start)


# -- the life of an adapter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peft_type", WORKING)
def test_it_trains_with_no_option_and_leaves_the_base_as_it_is(peft_type, tmp_path):
    base = Base(tiny_llama(), tokenizer=tiny_tokenizer())
    before = state_digest(base.model)
    run = {"max_steps": 12, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    adapter = base.train(list(ROWS), method=name_of(peft_type), output=tmp_path, **run)
    scores = base.evaluate(list(ROWS), adapter=adapter, max_new_tokens=1)
    assert scores["loss"] < scores.base["loss"]
    assert base.load(tmp_path / "adapter") == adapter
    base.use(adapter)
    base.unload(adapter)
    assert state_digest(base.model) == before
    model = base.model
    base.detach()
    assert state_digest(model) == before


@pytest.mark.parametrize("peft_type", ON_LAYERS)
def test_a_fresh_adapter_changes_what_it_promises_to_change(ids, peft_type):
    method = method_of(peft_type)
    for family in ("llama", "gpt2", "qwen"):
        base = Base(FAMILIES[family]())
        layers, _ = fresh_layers(peft_type, base)
        same = torch.equal(with_layers(base, method, layers, ids), base.logits(ids))
        assert same or not method.traits.identity_start


@pytest.mark.parametrize("peft_type", ON_LAYERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_its_effects_do_what_its_layers_do(ids, family, peft_type):
    base, method = Base(FAMILIES[family]()), method_of(peft_type)
    layers, _ = moved_layers(peft_type, base)
    own, bare = with_layers(base, method, layers, ids), base.logits(ids)
    adapter = adapter_of(peft_type, base)
    got = base.logits(ids, adapter=adapter)
    effects = {type(one).__name__ for here in method.lower(dict(layers.items())).values() for one in here}
    assert effects <= set(method.traits.effects)
    torch.testing.assert_close(got, own, atol=1e-5 * max(1.0, float(own.abs().max())), rtol=0)
    assert not torch.allclose(own, bare, atol=1e-3), "the adapter does nothing: the test is blind"


@pytest.mark.parametrize("peft_type", WORKING)
def test_a_row_beside_others_is_answered_as_it_is_alone(llama, ids, peft_type):
    adapter, lora = adapter_of(peft_type, llama), make_adapter(llama, rank=4)
    mixed = llama.logits(ids, adapter=[lora, adapter, None, adapter])
    for row, one in enumerate((lora, adapter, None, adapter)):
        torch.testing.assert_close(mixed[row : row + 1], llama.logits(ids[row : row + 1], adapter=one), **CLOSE)
    llama.unload(adapter)


@pytest.mark.parametrize("peft_type", MAIN)
def test_rows_that_act_through_layers_are_answered_as_alone(llama, ids, peft_type, monkeypatch):
    method, adapter = method_of(peft_type), adapter_of(peft_type, llama)
    lowered = llama.logits(ids, adapter=adapter)
    llama.unload(adapter)
    monkeypatch.setattr(type(method), "lower", lambda self, layers: None)
    mixed = llama.logits(ids, adapter=[None, adapter, make_adapter(llama, rank=4), adapter])
    for row in (1, 3):
        torch.testing.assert_close(mixed[row], lowered[row], **CLOSE)
    llama.unload(adapter)


# -- options and targets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "targets", "feedforward"),
    [("llama", {"k_proj", "v_proj", "down_proj"}, {"down_proj"}), ("gpt2", {"c_attn", "mlp.c_proj"}, {"mlp.c_proj"})],
)
def test_ia3_knows_the_layers_of_an_architecture(family, targets, feedforward):
    base = Base(FAMILIES[family]())
    config = configured("IA3", base)
    named = {site.name for site in base.sites if any(site.name.endswith(f".{end}") for end in targets)}
    assert {name.rsplit(".", 1)[0] for name in adapter_of("IA3", base).tensors} == named
    assert all(
        any(name.endswith(f".{end}") for end in feedforward) for name in config.feedforward_modules if "." in name
    )


def test_ia3_takes_fewer_keys_than_queries_for_no_feedforward():
    from transformers import MixtralConfig, MixtralForCausalLM

    # its experts are no linear layers, so that PEFT's names are not there, and its keys have fewer features than hidden states
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    mixtral = MixtralForCausalLM(MixtralConfig(vocab_size=97, num_key_value_heads=2, num_local_experts=2, **sizes))
    assert configured("IA3", Base(mixtral)).feedforward_modules == ()


def test_the_language_part_of_a_larger_architecture_is_known():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=97, num_key_value_heads=1, pad_token_id=0, **sizes))
    theirs = peft.get_peft_model(gemma, peft.IA3Config(task_type="CAUSAL_LM")).peft_config["default"].target_modules
    gemma = Gemma3ForCausalLM(gemma.config)
    assert set(configured("IA3", Base(gemma)).target_modules) == set(theirs)


def test_sizes_that_must_divide_the_layers_are_chosen_to(llama):
    assert configured("C3A", llama).block_size == 16
    assert configured("VBLORA", llama, target_modules=["q_proj"]).vector_length == 32
    with pytest.raises(ConfigError, match="block_size"):
        configured("C3A", Base(tiny_llama(intermediate_size=47)))
    with pytest.raises(ConfigError, match="do not fit this base"):
        fresh_layers("C3A", llama, block_size=7)


def test_layers_are_chosen_as_peft_does(llama):
    config = configured(
        "LOKR", llama, target_modules=["q_proj", "v_proj"], exclude_modules=["v_proj"], layers_to_transform=1
    )
    assert config.target_modules == ("model.layers.1.self_attn.q_proj",)
    with pytest.raises(TargetError, match="did you mean 'q_proj'"):
        configured("LOKR", llama, target_modules=["q_porj"])


def test_patterns_choose_ranks_by_layer(llama):
    layers, _ = fresh_layers("LOHA", llama, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 3})
    ranks = {name.rpartition(".")[2]: layer.tuner.r["default"] for name, layer in layers.items()}
    assert ranks == {"q_proj": 2, "v_proj": 3}


def test_options_are_pefts_own(llama):
    base = Base(tiny_llama(), tokenizer=tiny_tokenizer())
    with pytest.raises(ConfigError, match="neither method 'peft:vera' nor training has it"):
        base.train(list(ROWS), method="peft:vera", rank=4)
    with pytest.raises(ConfigError, match="must be a whole number"):
        base.train(list(ROWS), method="peft:vera", r=4.5)
    fields = {field.name for field in attrs.fields(type(configured("VERA", llama)))}
    assert fields < set(peft.VeraConfig.__dataclass_fields__)


@pytest.mark.parametrize("peft_type", ["LOHA", "LOKR", "OFT"])
def test_gpt2_works_where_peft_has_no_layer_for_it(ids, peft_type):
    base = Base(tiny_gpt2())
    before = state_digest(base.model)
    adapter = adapter_of(peft_type, base)
    site = next(site for site in base.sites if site.kind == "conv1d")
    with base.using(adapter):
        changed = site.module(torch.eye(site.in_features)) - site.module(torch.zeros(1, site.in_features))
    assert changed.shape == (site.in_features, site.out_features)
    assert not torch.allclose(base.logits(ids, adapter=adapter), base.logits(ids), atol=1e-3)
    assert state_digest(base.model) == before


@pytest.mark.parametrize("peft_type", MAIN)
def test_a_base_in_half_precision_is_answered_nearly_as_one_in_full(ids, peft_type):
    full, half = Base(tiny_llama()), Base(tiny_llama().to(torch.bfloat16))
    want = full.logits(ids, adapter=adapter_of(peft_type, full))
    layers, _ = moved_layers(peft_type, half)
    assert {parameter.dtype for parameter in layers.parameters()} == {torch.float32}
    got = with_layers(half, method_of(peft_type), layers, ids).float()
    assert (got - want).abs().mean() < 0.02 * want.abs().mean() + 0.01
    lowered = half.logits(ids, adapter=adapter_of(peft_type, half)).float()
    assert (lowered - want).abs().mean() < 0.02 * want.abs().mean() + 0.01


@pytest.mark.parametrize("peft_type", SOFT)
@pytest.mark.parametrize("start", ["TEXT", "SAMPLE_VOCAB"])
def test_a_soft_prompt_starts_from_words(peft_type, start):
    if peft_type == "P_TUNING":
        pytest.skip("PEFT's p-tuning has no such option")
    base = Base(tiny_llama(), tokenizer=tiny_tokenizer())
    text = {"prompt_tuning_init_text": "my card"} if start == "TEXT" else {}
    layers, config = fresh_layers(peft_type, base, prompt_tuning_init=start, **text)
    method_of(peft_type).initialize(config, dict(layers.items()), base, ())
    table, words = layers["input"].encoder.embedding.weight, base.model.get_input_embeddings().weight
    assert all(any(torch.equal(row, word) for word in words) for row in table)


def test_two_registries_have_their_own_methods():
    assert Registry().method("peft:vera") is not default_registry().method("peft:vera")
    assert OPTIONS.keys() <= {*WORKING}


RACE = """
import sys, threading, time
from adapterkit_peft.catalogue import KINDS
from adapterkit_peft.method import PeftMethod, peft_config
method = PeftMethod.of("IA3")
threading.Thread(target=lambda: __import__("peft")).start()
while "peft.mapping" not in sys.modules:
    time.sleep(0.0005)
print(type(peft_config("IA3", method.config(), [], {})).__name__)
"""


def test_a_method_waits_until_another_thread_has_imported_peft():
    """Its tables of methods are filled while it is imported."""
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=False)
    assert done.stdout == "IA3Config\n", done.stderr
