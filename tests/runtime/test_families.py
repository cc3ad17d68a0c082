"""Layers that other families call in ways of their own: each acts in full there, or is refused."""

import pytest
import torch
from transformers import (
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
)

from adapterkit import Base, SelectionError
from adapterkit.testing.models import SIZES
from adapterkit_full.algebra import parameter_of
from tests.support import make_adapter

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SMALL = {**SIZES, "bos_token_id": 1, "eos_token_id": 2}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.fixture
def ids():
    return torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(0))


def seeded(cls, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(config).eval()


def changed(model, adapter):
    with torch.no_grad():
        for name, delta in adapter.tensors.items():
            model.get_parameter(parameter_of(name)).add_(delta)
    return model


def opt():
    return seeded(OPTForCausalLM, OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32))


def gpt_oss():
    return seeded(GptOssForCausalLM, GptOssConfig(**SMALL, **MIXTURE, head_dim=8))


@pytest.mark.parametrize(("make", "target"), [(opt, "embed_positions"), (gpt_oss, "self_attn")])
def test_a_layer_that_is_called_in_its_own_way_has_all_its_parameters_changed(make, target, ids):
    base, mask = Base(make()), torch.ones_like(ids)
    adapter = make_adapter(base, method="full", target_modules=target)
    got = base.logits(ids, adapter=adapter, attention_mask=mask)
    want = changed(make(), adapter)(ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(got, want, **CLOSE)


def test_a_layer_with_a_state_is_not_run_twice(ids):
    base = Base(gpt_oss())
    with (
        base.using(make_adapter(base, method="full", target_modules="self_attn")),
        pytest.raises(SelectionError, match="keeps a state from token to token"),
    ):
        base.model(ids, use_cache=True)


def test_a_router_that_returns_several_things_is_no_linear_layer(ids):
    base = Base(seeded(PhimoeForCausalLM, PhimoeConfig(**SMALL, **MIXTURE)))
    first, second = make_adapter(base), make_adapter(base, rank=3, seed=1)
    assert not any("router" in name for name in first.tensors)
    mixed = base.logits(ids, adapter=[first, None, second])
    torch.testing.assert_close(mixed[2:], base.logits(ids[2:], adapter=second), **CLOSE)


def test_a_model_that_looks_tokens_up_in_every_layer_has_no_virtual_ones(ids):
    own = {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 97,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
    }
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "activation_sparsity_pattern": [0.0, 0.0]}
    config = Gemma3nTextConfig(**{**SMALL, "intermediate_size": [48, 48]}, **own, **kinds, head_dim=8)
    base = Base(seeded(Gemma3nForCausalLM, config))
    adapter = make_adapter(base, method="prompt_tuning", tokens=3)
    with pytest.raises(SelectionError, match="needs the ids themselves"):
        base.logits(ids, adapter=[adapter, None, None])
