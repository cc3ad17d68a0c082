"""LoRA on the fused experts of a mixture: PEFT's ``target_parameters``."""

import peft
import pytest
import torch
import transformers

from adapterkit import Base, ConfigError, TargetError
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers, plan_of_layers
from tests.plugins.lora_cases import moved
from tests.plugins.test_lora_options import loss, our_name
from tests.support import make_adapter, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts_per_tok": 2,
}
MIXTURES = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen3Moe": {"num_experts": 4, "moe_intermediate_size": 24},
    "GptOss": {"num_local_experts": 4},  # stores its experts transposed, and has biases
}
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
OPTIONS = {
    "both": {"target_parameters": BOTH},
    "one": {"target_parameters": BOTH[1:]},
    "alone": {"target_parameters": BOTH, "target_modules": []},
    "patterns": {"target_parameters": BOTH, "rank_pattern": {"experts.gate_up_proj": 3}, "use_rslora": True},
    "the router": {"target_parameters": ["{router}.weight"]},
    "a linear layer": {"target_parameters": ["o_proj.weight"]},
}


def mixture(family):
    config = getattr(transformers, f"{family}Config")(**SIZES, **MIXTURES[family], pad_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def options_for(family, name):
    router = "router" if family == "GptOss" else "gate"
    asked = {"target_modules": ["q_proj"], **OPTIONS[name]}
    return {**asked, "target_parameters": [one.replace("{router}", router) for one in asked["target_parameters"]]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("name", OPTIONS)
def test_we_load_what_peft_saves_say_the_same_and_learn_the_same(family, name, ids, tmp_path):
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, **options_for(family, name))
    model = moved(peft.get_peft_model(mixture(family), config).eval())
    model.save_pretrained(tmp_path / "theirs")
    base = Base(mixture(family))
    before = state_digest(base.model)
    adapter = base.load(tmp_path / "theirs")
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)
    assert not torch.allclose(base.logits(ids), model(ids).logits, atol=1e-2)
    mixed = base.logits(ids, adapter=[None, adapter, None, adapter])
    torch.testing.assert_close(mixed[1::2], base.logits(ids, adapter=adapter)[1::2], **CLOSE)

    layers = build_layers(default_registry(), default_registry().method("lora"), adapter.config, base.sites)
    for site, layer in layers.items():
        layer.load_state_dict({key: adapter.tensors[f"{site}.{key}"] for key in layer.state_dict()})
    loss(model(ids).logits, ids).backward()
    with base.runtime.override(plan_of_layers("lora", layers)):
        loss(base.model(ids).logits, ids).backward()
    theirs = {our_name(key): one.grad for key, one in model.named_parameters() if one.requires_grad}
    mine = {key.removeprefix("layers."): one.grad for key, one in layers.named_parameters() if one.requires_grad}
    assert set(mine) == set(theirs)
    for key, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[key], **CLOSE)
    assert state_digest(base.model) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("name", OPTIONS)
def test_peft_loads_what_we_save_and_says_the_same(family, name, ids, tmp_path):
    base = Base(mixture(family))
    adapter = make_adapter(base, rank=2, **options_for(family, name))
    folder = adapter.save(tmp_path / "ours")
    assert base.load(folder) == adapter
    theirs = peft.PeftModel.from_pretrained(mixture(family), folder).eval()
    torch.testing.assert_close(theirs(ids).logits, base.logits(ids, adapter=adapter), **CLOSE)
    found = peft.set_peft_model_state_dict(theirs, peft.load_peft_weights(str(folder)))
    assert not found.unexpected_keys
    assert not [key for key in found.missing_keys if "lora_" in key]


@pytest.mark.parametrize("family", MIXTURES)
def test_a_fresh_adapter_changes_no_bit(family, ids):
    base, registry = Base(mixture(family)), default_registry()
    method = registry.method("lora")
    config = method.config(rank=2, target_parameters=tuple(BOTH))
    config = registry.call("configure", method, config=config, sites=base.sites)
    layers = build_layers(registry, method, config, base.sites)
    with base.runtime.override(plan_of_layers("lora", layers)), torch.no_grad():
        assert torch.equal(base.model(ids).logits, base.logits(ids))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_parameters": BOTH, "dropout": 0.1}, "neither use_dora nor dropout"),
        ({"target_parameters": BOTH, "use_dora": True}, "neither use_dora nor dropout"),
        ({"target_parameters": BOTH, "init_lora_weights": "pissa"}, "'pissa' is not how"),
        ({"target_parameters": ["q_proj.weight"]}, "is trained as a target"),
        ({"target_parameters": BOTH, "modules_to_save": ["experts"]}, "as a whole"),
    ],
)
def test_options_that_do_not_go_together_say_why(options, said):
    with pytest.raises(ConfigError, match=said):
        make_adapter(Base(mixture("Mixtral")), **options)


def test_a_parameter_that_is_not_there_names_what_is():
    with pytest.raises(
        TargetError, match=r"no target parameter 'experts.gate_proj'.* Available: down_proj, gate_up_proj"
    ):
        make_adapter(Base(mixture("Mixtral")), target_parameters=["experts.gate_proj"])
