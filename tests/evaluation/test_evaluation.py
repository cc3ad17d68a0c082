"""Evaluation: the figures are those that a hand computes, and the base stands beside."""

import math

import pytest
import torch
from torch.nn import functional

from adapterkit import Base, ConfigError, DataError, SelectionError
from tests.support import EXAMPLE_BASE, make_adapter

ROWS = [
    {"prompt": "How do I locate my card?", "completion": "card arrival"},
    {"prompt": "Hi", "completion": "no"},
    {"prompt": "I still have not received my new card", "completion": "card arrival"},
    {"prompt": "My payment was declined", "completion": "declined, it seems"},
]


@pytest.fixture(scope="module")
def base():
    return Base(EXAMPLE_BASE)


@pytest.fixture(scope="module")
def adapter(base):
    return make_adapter(base, rank=4, scale=0.05)


def loss_by_hand(base, adapter):
    """Row by row, without padding, with transformers' own template."""
    total, count = 0.0, 0
    for row in ROWS:
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        start = len(base.tokenizer(prompt, add_special_tokens=False).input_ids)
        text = prompt + row["completion"] + "<|im_end|>"
        ids = base.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        logits = base.logits(ids, adapter=adapter)[0, start - 1 : -1]
        total += float(functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        count += ids.shape[1] - start
    return total / count


def test_loss_and_perplexity_are_those_of_a_hand(base, adapter):
    result = base.evaluate(ROWS, adapter=adapter)
    assert result["loss"] == pytest.approx(loss_by_hand(base, adapter), abs=1e-4)
    assert result.base["loss"] == pytest.approx(loss_by_hand(base, None), abs=1e-4)
    assert result["loss"] != pytest.approx(result.base["loss"], abs=1e-2), "the adapter does nothing: the test is blind"
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert result.rows == len(ROWS)


def test_accuracy_is_the_part_of_answers_that_are_right(base):
    answers = base.generate([row["prompt"] for row in ROWS], max_new_tokens=6)
    rows = [{**row, "completion": answer} for row, answer in zip(ROWS, answers, strict=True)]
    rows[1] = {**rows[1], "completion": "something else entirely"}
    result = base.evaluate(rows, max_new_tokens=6)
    assert result["accuracy"] == 0.75
    assert list(result.predictions) == answers


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_matter(base, adapter, batch_size):
    whole, parts = base.evaluate(ROWS, adapter=adapter), base.evaluate(ROWS, adapter=adapter, batch_size=batch_size)
    assert parts["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert parts.predictions == whole.predictions


def test_the_base_stands_beside_unless_it_is_not_wanted(base, adapter):
    beside = base.evaluate(ROWS, adapter=adapter)
    alone = base.evaluate(ROWS)
    assert dict(beside.base) == dict(alone)
    answers = [base.generate([row["prompt"] for row in ROWS], adapter=one, max_new_tokens=8) for one in (adapter, None)]
    assert answers[0] != answers[1], "the adapter changes no answer: the test is blind"
    assert [list(base.evaluate(ROWS, adapter=one, max_new_tokens=8).predictions) for one in (adapter, None)] == answers
    assert alone.base is None
    assert base.evaluate(ROWS, adapter=adapter, compare=False).base is None


def test_the_adapter_in_use_is_the_one_that_is_scored(base, adapter):
    want = dict(base.evaluate(ROWS, adapter=adapter, compare=False))
    with base.using(adapter):
        assert dict(base.evaluate(ROWS, compare=False)) == want
        assert base.evaluate(ROWS).base is not None
        assert dict(base.evaluate(ROWS, adapter=None)) == dict(base.evaluate(ROWS, adapter=adapter).base)
    base.use(adapter)
    try:
        assert dict(base.evaluate(ROWS, compare=False)) == want
    finally:
        base.use(None)


def test_evaluating_leaves_the_base_as_it_is(base, adapter):
    ids = torch.tensor([[5, 6, 7]])
    before, state = base.logits(ids), torch.get_rng_state()
    base.evaluate(ROWS, adapter=adapter)
    assert torch.equal(base.logits(ids), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert base.active is None


@pytest.mark.parametrize("wrong", ["cards", 3, [None, None], {"a": 1}])
def test_what_is_no_single_adapter_is_refused(base, wrong):
    with pytest.raises(SelectionError, match="evaluate takes one adapter or None"):
        base.evaluate(ROWS, adapter=wrong)


def test_a_selection_for_rows_in_use_is_no_single_adapter(base, adapter):
    with base.using([adapter, None]), pytest.raises(SelectionError, match="evaluate takes one adapter"):
        base.evaluate(ROWS)


def test_unfit_options_and_rows_are_refused(base):
    with pytest.raises(ConfigError, match="max_new_token: no such option; did you mean 'max_new_tokens'"):
        base.evaluate(ROWS, max_new_token=3)
    with pytest.raises(DataError):
        base.evaluate([])


def test_raw_text_is_scored_by_its_loss_alone(base):
    scores = base.evaluate([{"text": "a first text"}, {"text": "and another one"}], adapter=None)
    assert set(scores) == {"loss", "perplexity"}
    assert scores.rows == 2
    assert not scores.predictions
