"""What an adapter learns does not depend on whether somebody looked: gradients are the same, bit for bit, after an evaluation."""

import pytest
import torch
from transformers import AutoTokenizer

from adapterkit import Base
from adapterkit.evaluation import compare, scoring
from adapterkit.testing import tiny_llama
from tests.quantize.support import ROWS, gradients
from tests.support import EXAMPLE_BASE, make_adapter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama whose layers bitsandbytes would pack for inference: at least 64 features in and a multiple of 32 out."""
    folder = tmp_path_factory.mktemp("llama")
    tiny_llama(vocab_size=8192, hidden_size=128, intermediate_size=192, max_position_embeddings=128).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(EXAMPLE_BASE).save_pretrained(folder)
    return folder


@pytest.fixture(params=["float32", "nf4"])
def base(request, folder):
    if request.param == "nf4":
        pytest.importorskip("bitsandbytes")
        return Base(folder, quantize="nf4")
    return Base(folder)


def look(base):
    """Everything that evaluating does: losses and answers, of the base, of a LoRA and of a soft prompt."""
    lora, soft = make_adapter(base, rank=2), make_adapter(base, method="prompt_tuning", tokens=3)
    base.evaluate(ROWS, adapter=lora, max_new_tokens=2)
    compare(base, ROWS[:3], {"lora": lora, "soft": soft}, max_new_tokens=2)


def same(ones, others):
    return all(torch.equal(ones[name], other) for name, other in others.items())


def test_gradients_are_equal_before_and_after_an_evaluation(base):
    before = gradients(base)
    look(base)
    after = gradients(base)
    assert before.keys() == after.keys()
    assert all(bool(one.abs().max() > 0) for one in before.values()), "no gradient: the test is blind"
    assert same(before, after)


def test_gradients_are_equal_on_a_base_that_was_evaluated_first(base, folder):
    look(base)
    fresh = Base(folder, quantize=base.quantized or None)
    assert same(gradients(fresh), gradients(base))


def test_an_evaluation_that_leaves_a_trace_is_found(folder, monkeypatch):
    base, real = Base(folder), scoring.row_losses

    def losses(*arguments):
        with torch.no_grad():
            base.model.model.layers[0].self_attn.q_proj.weight[0, 0].add_(1e-6)
        return real(*arguments)

    monkeypatch.setattr(scoring, "row_losses", losses)
    before = gradients(base)
    look(base)
    assert not same(before, gradients(base))
