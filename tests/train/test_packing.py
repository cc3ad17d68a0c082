"""Packing: only for models that are seen to keep rows apart, and then it changes nothing but the speed."""

import logging

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from adapterkit import Base
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.train.test_training import OPTIONS, ROWS, close, fresh, tokenizer  # noqa: F401 - a fixture

SMALL = {"vocab_size": 8192, "hidden_size": 32, "num_hidden_layers": 2}


def said(caplog):
    """What adapterkit itself has logged: libraries that are first imported here have their own to say."""
    return [record.getMessage() for record in caplog.records if record.name == "adapterkit"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [tiny_llama, tiny_gpt2])
def test_packed_rows_train_the_same_adapter_as_padded_ones(tokenizer, family, attention, caplog):  # noqa: F811
    def one(**options):
        return fresh(tokenizer, lambda **changes: family(attn_implementation=attention, **changes)).train(
            ROWS, **OPTIONS, **options
        )

    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        packed = one()
    assert said(caplog) == []
    assert close(packed, one(packing=False), 1e-4)


def test_half_precision_packs_too(tokenizer, caplog):  # noqa: F811
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        fresh(tokenizer).train(ROWS, bf16=True, **{**OPTIONS, "max_steps": 1})
        model = tiny_llama(vocab_size=8192, max_position_embeddings=128).to(torch.bfloat16)
        Base(model, tokenizer=tokenizer).train(ROWS, **{**OPTIONS, "max_steps": 1})
    assert said(caplog) == []


def test_packing_does_pack(tokenizer):  # noqa: F811
    def rows_per_pass(**options):
        base, seen = fresh(tokenizer), []
        base.model.register_forward_pre_hook(
            lambda _, inputs, options: seen.append(len(options["input_ids"])), with_kwargs=True
        )
        base.train(ROWS, **{**OPTIONS, "max_steps": 1}, **options)
        return seen[-1]

    assert rows_per_pass(packing=False) == 8
    assert rows_per_pass() < 8


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            lambda: MambaForCausalLM(MambaConfig(**SMALL, state_size=4)),
            "the model refuses|otherwise beside another|takes no mask",
        ),
        (lambda: BloomForCausalLM(BloomConfig(**SMALL, n_head=4)), "the model refuses|otherwise beside another"),
        (
            lambda: MistralForCausalLM(
                MistralConfig(
                    **SMALL, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, sliding_window=8
                )
            ),
            "longer than the attention window",
        ),
    ],
    ids=["mamba", "bloom", "sliding-window"],
)
def test_a_model_that_cannot_keep_rows_apart_is_padded_and_says_so(tokenizer, model, reason, caplog):  # noqa: F811
    torch.manual_seed(0)
    base = Base(model().eval(), tokenizer=tokenizer)
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        adapter = base.train(ROWS, **{**OPTIONS, "max_steps": 2})
    assert "rows are padded, not packed: " in caplog.text
    assert any(word in caplog.text for word in reason.split("|")), caplog.text
    plain = base.train(ROWS, packing=False, **{**OPTIONS, "max_steps": 2})
    assert adapter.tensors.keys() == plain.tensors.keys()
    assert close(adapter, plain, 0.0)


def test_a_model_that_looks_past_the_mask_is_found_out(tokenizer, caplog):  # noqa: F811
    base = fresh(tokenizer)
    base.model.model.layers[0].mlp.register_forward_hook(lambda _, __, out: out + out.mean(dim=1, keepdim=True))
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        base.train(ROWS, **{**OPTIONS, "max_steps": 1})
    assert "a row is answered otherwise beside another one" in caplog.text
