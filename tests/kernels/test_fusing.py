"""Parts of a base that compute in one kernel while an adapter is trained: the same adapter, and nothing left on the base."""

import logging
import threading

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from adapterkit import Base
from adapterkit.kernels import fused, fusing
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter, state_digest

SIZES = {
    "vocab_size": 8192,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
ROWS = [{"prompt": f"question {n}", "completion": ("yes it is", "no")[n % 2]} for n in range(16)]
OPTIONS = {"rank": 4, "learning_rate": 1e-2, "batch_size": 4, "max_steps": 3}


def qwen3():
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES)).eval()


def gemma():
    torch.manual_seed(0)
    return GemmaForCausalLM(GemmaConfig(**SIZES)).eval()


def llama():
    return tiny_llama(vocab_size=8192, max_position_embeddings=128)


def base_of(model):
    return Base(model, tokenizer=AutoTokenizer.from_pretrained(EXAMPLE_BASE))


@pytest.fixture
def calls(monkeypatch):
    """How often each kernel is used."""
    seen = {"silu_mul": 0, "rotate": 0, "_rms_norm": 0}
    for name in seen:
        own = getattr(fusing, name)

        def counted(*given, name=name, own=own):
            seen[name] += 1
            return own(*given)

        monkeypatch.setattr(fusing, name, counted)
    return seen


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("model", [llama, qwen3])
def test_the_adapter_is_the_same_and_the_base_as_it_was(model, options, calls):
    base = base_of(model())
    before = state_digest(base.model)
    plain = base.train(ROWS, **OPTIONS, **options)
    assert set(calls.values()) == {0}, "not by default where there is no GPU"
    fast = base.train(ROWS, use_fused_kernels=True, **OPTIONS, **options)
    assert min(calls.values()) > 0
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(fast.tensors[name], tensor, atol=1e-5, rtol=0)
    assert state_digest(base.model) == before
    assert not [name for name, module in base.model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}])
def test_trying_a_kernel_draws_nothing_from_dropout(options, calls):
    base = base_of(llama())
    plain = base.train(ROWS, dropout=0.3, **OPTIONS)
    fast = base.train(ROWS, dropout=0.3, use_fused_kernels=True, **OPTIONS, **options)
    assert min(calls.values()) > 0
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(fast.tensors[name], tensor, atol=1e-5, rtol=0)


def test_where_a_part_of_each_head_is_turned_the_model_does_it(calls, caplog):
    torch.manual_seed(0)
    sizes = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    base = base_of(GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=4)).eval())
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        base.train(ROWS, use_fused_kernels=True, **OPTIONS)
    assert (calls["rotate"], caplog.text) == (0, "")


def test_what_is_computed_otherwise_is_left_to_the_model(calls):
    """Gemma adds one to the weight of its norms, and its gated layers use another function."""
    base = base_of(gemma())
    plain = base.train(ROWS, **OPTIONS)
    fast = base.train(ROWS, use_fused_kernels=True, **OPTIONS)
    assert calls["_rms_norm"] == 1, "tried once, for all norms"
    assert calls["silu_mul"] == 0
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(fast.tensors[name], tensor, atol=1e-5, rtol=0)


def test_without_the_trial_such_a_model_would_be_trained_wrongly(monkeypatch):
    base = base_of(gemma())
    plain = base.train(ROWS, **OPTIONS)
    monkeypatch.setattr(fusing.Trial, "passes", lambda *_: True)
    fast = base.train(ROWS, use_fused_kernels=True, **OPTIONS)
    assert any((fast.tensors[name] - tensor).abs().max() > 1e-3 for name, tensor in plain.tensors.items())


def test_a_kernel_that_fails_is_said_and_done_without(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no compiler here")

    base = base_of(llama())
    plain = base.train(ROWS, **OPTIONS)
    for name in ("silu_mul", "rotate"):
        monkeypatch.setattr(fusing, name, broken)
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        fast = base.train(ROWS, use_fused_kernels=True, **OPTIONS)
    said = [record.getMessage() for record in caplog.records]
    assert sum("no compiler here" in one for one in said) == 2, "once for each"
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(fast.tensors[name], tensor, atol=1e-5, rtol=0)


def test_who_needs_no_gradient_is_answered_by_the_model_itself(calls):
    base = base_of(llama())
    adapter = make_adapter(base, rank=4)
    ids = torch.arange(1, 12)[None]
    found = {}

    def answer():  # with torch's default, that gradients are wanted: nothing here has one
        with base.using(adapter):
            found["logits"] = base.model(ids).logits

    answer()
    expected = found.pop("logits")

    with fused(base.model):
        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()
    assert torch.equal(found["logits"], expected)
    assert set(calls.values()) == {0}


def test_an_error_leaves_nothing_behind():
    model = llama()

    def fail():
        with fused(model):
            assert any("forward" in vars(module) for module in model.modules())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert not any("forward" in vars(module) for module in model.modules())
