"""Weights of turns: twice the weight is the same as having the turn twice, in every shape that a batch may have."""

import math

import pytest
import torch

from adapterkit import Conversation, DataError, Example, Message
from adapterkit.data.batching import collate
from adapterkit.data.dataset import encode_rows
from adapterkit.data.packing import pack
from adapterkit.data.rendering import Renderer
from adapterkit.forward import BaseForward
from adapterkit.testing import tiny_llama
from adapterkit_objectives.sft import sft_loss

PLAIN = Example((1, 2, 3, 4), (-100, 2, 3, 4))
HEAVY = Example((1, 2, 3, 4), (-100, 2, 3, 4), weights=(1.0, 2.0, 2.0, 2.0))
OTHER = Example((5, 6, 7), (-100, -100, 7))


def together(model, examples, put):
    """The mean loss of a batch and the gradient of the head."""
    model.zero_grad()
    loss = sft_loss(BaseForward(model), put(examples, 0))
    (loss.total / loss.tokens).backward()
    return loss.total.item(), float(loss.tokens), model.lm_head.weight.grad.clone()


@pytest.mark.parametrize("put", [collate, pack])
def test_weight_2_is_the_same_as_twice(put):
    model = tiny_llama().train()
    total, tokens, gradient = together(model, [HEAVY, OTHER], put)
    total_of_two, tokens_of_two, gradient_of_two = together(model, [PLAIN, PLAIN, OTHER], put)
    assert total == pytest.approx(total_of_two, rel=1e-5)
    assert tokens == tokens_of_two == 7
    assert torch.allclose(gradient, gradient_of_two, atol=1e-6)
    assert not torch.allclose(gradient, together(model, [PLAIN, OTHER], put)[2], atol=1e-4)


@pytest.mark.parametrize("put", [collate, pack])
def test_batches_carry_weights_only_where_a_row_has_them(put):
    assert "weights" not in put([PLAIN, OTHER], 0)
    batch = put([HEAVY, OTHER], 0)
    assert batch["weights"].shape == batch["labels"].shape
    assert (batch["weights"][batch["labels"] == 7] == 1).all()
    assert (batch["weights"][batch["labels"] == 3] == 2).all()


def test_trained_is_the_sum_of_weights_without_the_first_token():
    assert (PLAIN.trained, HEAVY.trained, OTHER.trained) == (3, 6.0, 1)
    assert type(PLAIN.trained) is int
    assert Example((1, 2), (1, 2), weights=(5.0, 0.5)).trained == 0.5
    assert HEAVY.after([8, 9]) == Example(
        (8, 9, 1, 2, 3, 4), (-100, -100, -100, 2, 3, 4), 0, (1.0, 1.0, *HEAVY.weights)
    )
    assert HEAVY.after([8, 9]).trained == HEAVY.trained


def talk(**extra):
    turn = {"role": "assistant", "content": "first", **extra}
    said = [{"role": "user", "content": "a"}, turn, {"role": "user", "content": "b"}]
    return {"messages": [*said, {"role": "assistant", "content": "second"}]}


def test_a_turns_tokens_have_its_weight_up_to_the_one_that_ends_it(tokenizer, registry):
    rows = [talk(weight=0.5), talk(), talk(weight=0), talk(train=False), talk(weight=1.0)]
    weighted, plain, zero, untrained, one = encode_rows(rows, Renderer(tokenizer, 64), registry).examples
    first = [
        tokenizer.decode([token])
        for token, weight in zip(weighted.input_ids, weighted.weights, strict=True)
        if weight == 0.5
    ]
    assert "".join(first) == "first<|im_end|>"
    assert weighted.trained == plain.trained - 0.5 * len(first)
    assert zero == untrained
    assert one == plain
    assert plain.weights is None


def test_cutting_keeps_weights_with_their_tokens(tokenizer):
    record = Conversation((Message("user", "word " * 40), Message("assistant", "answer", train=True, weight=3.0)))
    cut = Renderer(tokenizer, 12).encode(record)
    assert cut.truncated
    assert [weight == 3.0 for weight in cut.weights] == [label != -100 for label in cut.labels]


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, "2", True])
def test_other_weights_are_refused(registry, tokenizer, weight):
    with pytest.raises(DataError, match=r"\"weight\" of messages\[1\] must be a number and at least 0"):
        encode_rows([talk(weight=weight)], Renderer(tokenizer, 64), registry)


@pytest.mark.parametrize("weight", [1e308, 1e39, 1e-46, 1e-300])
def test_weights_that_float32_cannot_take_are_refused(registry, tokenizer, weight):
    with pytest.raises(DataError, match=r"\"weight\" of messages\[1\] must be 0, or between 1e-06 and 1e\+06"):
        encode_rows([talk(weight=weight)], Renderer(tokenizer, 64), registry)


@pytest.mark.parametrize("packing", [True, False])
def test_a_run_with_a_row_of_weight_2_is_the_run_with_that_row_twice(example_base, packing):
    one = {
        "messages": [{"role": "user", "content": "Where is my card?"}, {"role": "assistant", "content": "card_arrival"}]
    }
    heavy = {"messages": [one["messages"][0], {**one["messages"][1], "weight": 2}]}
    other = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there, how are you?"}]
    }
    task = {"rank": 2, "max_steps": 2, "batch_size": 3, "seed": 1, "packing": packing, "learning_rate": 1e-2}
    weighted = example_base.train([heavy, other], eval_data=[heavy, other], **task).manifest.training
    twice = example_base.train([one, one, other], eval_data=[one, one, other], **task).manifest.training
    assert weighted["data"]["trained_tokens"] == twice["data"]["trained_tokens"]
    assert weighted["loss"] == pytest.approx(twice["loss"], abs=1e-4)
    assert weighted["eval_loss"] == pytest.approx(twice["eval_loss"], abs=1e-4)
