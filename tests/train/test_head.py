"""Losses without all logits at once: the same numbers, where the model lets them be, and said where it does not."""

import logging

import pytest
import torch
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from adapterkit import Base, head
from adapterkit.forward import BaseForward
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import make_adapter
from tests.train.test_training import OPTIONS, ROWS, close, fresh, log_of, tokenizer  # noqa: F401 - a fixture

SIZES = {
    "vocab_size": 8192,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def gemma2(**changes):
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.1, **changes)).eval()


def granite(**changes):
    torch.manual_seed(0)
    return GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0, **changes)).eval()


@pytest.fixture
def in_parts(monkeypatch):
    """Parts of three tokens, for every batch."""
    monkeypatch.setattr(head, "MOST_LOGITS", 0)
    monkeypatch.setattr(head, "PART", 3 * 8192)


@pytest.fixture
def sizes(monkeypatch):
    """How many tokens the head was given, each time."""
    seen = []

    def watch(base):
        base.model.get_output_embeddings().register_forward_hook(
            lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel())
        )
        return seen

    return watch


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"bf16": True}, {"packing": False}])
@pytest.mark.parametrize("family", [tiny_llama, tiny_gpt2])
def test_training_in_parts_makes_the_same_adapter(tokenizer, family, options, request, tmp_path):  # noqa: F811
    plain = fresh(tokenizer, family).train(ROWS, output=tmp_path / "plain", **OPTIONS, **options)
    request.getfixturevalue("in_parts")
    parts = fresh(tokenizer, family).train(ROWS, output=tmp_path / "parts", **OPTIONS, **options)
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("plain", "parts")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-2 if "bf16" in options else 1e-5)
    if "bf16" in options:  # Adam makes a whole step of a gradient that rounding has turned around
        whole, other = (torch.cat([tensor.flatten() for tensor in one.tensors.values()]) for one in (plain, parts))
        assert (whole - other).norm() < 0.1 * whole.norm()
    else:
        assert close(plain, parts, 1e-4)


def test_an_adapter_on_the_head_acts_in_every_part_and_learns(tokenizer, request):  # noqa: F811
    options = {**OPTIONS, "target_modules": ["lm_head", "q_proj"], "max_steps": 2}
    plain = fresh(tokenizer).train(ROWS, **options)
    request.getfixturevalue("in_parts")
    assert close(plain, fresh(tokenizer).train(ROWS, **options), 1e-4)


def test_dropout_on_the_head_is_the_same_when_its_part_is_computed_again(tokenizer, in_parts):  # noqa: F811
    options = {**OPTIONS, "target_modules": ["lm_head"], "dropout": 0.5, "max_steps": 2}
    assert fresh(tokenizer).train(ROWS, **options).digest == fresh(tokenizer).train(ROWS, **options).digest


def test_no_part_is_larger_than_it_should_be(tokenizer, in_parts, sizes):  # noqa: F811
    base = fresh(tokenizer)
    seen = sizes(base)
    base.train(ROWS, packing=False, **{**OPTIONS, "max_steps": 1})
    assert max(seen) == head.TRIED
    assert seen.count(3) > 4


def test_a_small_batch_has_its_logits_at_once(tokenizer, sizes):  # noqa: F811
    base = fresh(tokenizer)
    seen = sizes(base)
    adapter = base.train(ROWS, packing=False, **{**OPTIONS, "max_steps": 1, "batch_size": 24})
    assert seen == [adapter.manifest.training["data"]["trained_tokens"]]


@pytest.mark.parametrize("model", [gemma2, granite], ids=["capped", "scaled"])
def test_a_model_that_changes_its_logits_after_its_head_has_them_all_at_once_and_says_so(
    tokenizer,  # noqa: F811
    model,
    request,
    caplog,
):
    plain = Base(model(), tokenizer=tokenizer).train(ROWS, **OPTIONS)
    request.getfixturevalue("in_parts")
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        parts = Base(model(), tokenizer=tokenizer).train(ROWS, **OPTIONS)
    said = [record.getMessage() for record in caplog.records if "after its head" in record.getMessage()]
    assert len(said) == 1, "once for each run"
    assert close(plain, parts, 0.0)


def test_a_model_whose_logits_are_changed_would_be_trained_wrongly_if_it_were_not_tried(
    tokenizer,  # noqa: F811
    in_parts,
    monkeypatch,
    tmp_path,
):
    right = Base(gemma2(), tokenizer=tokenizer).train(ROWS, **{**OPTIONS, "max_steps": 1})
    monkeypatch.setattr(head, "_same", lambda logits, output: True)
    wrong = Base(gemma2(), tokenizer=tokenizer).train(ROWS, **{**OPTIONS, "max_steps": 1})
    assert abs(right.manifest.training["loss"] - wrong.manifest.training["loss"]) > 1e-3


@pytest.mark.parametrize("parts", [False, True])
def test_losses_of_tokens_are_those_of_the_logits(tokenizer, parts, request):  # noqa: F811
    if parts:
        request.getfixturevalue("in_parts")
    base = fresh(tokenizer)
    ids = torch.randint(4, 8000, (3, 11))
    positions = torch.rand(ids.shape) < 0.6
    targets = torch.randint(4, 8000, (int(positions.sum()),))
    adapter = make_adapter(base, rank=2, target_modules=["lm_head", "v_proj"])
    with torch.no_grad(), base.using(adapter):
        losses = BaseForward(base.model).token_losses({"input_ids": ids}, positions, targets)
    want = functional.cross_entropy(base.logits(ids, adapter=adapter)[positions], targets, reduction="none")
    torch.testing.assert_close(losses, want)
    assert losses.dtype == torch.float32
    assert len(base.model.get_output_embeddings()._forward_pre_hooks) == 0
