"""Adapters on the same rows: scores, differences, and answers side by side."""

import json

import numpy as np
import pytest

from adapterkit import SelectionError
from adapterkit.evaluation import compare
from adapterkit.evaluation.intervals import difference_interval
from adapterkit.evaluation.samples import on_samples
from tests.evaluation.conftest import ROWS


def test_each_is_what_evaluate_finds(comparison, base, adapter, other):
    assert list(comparison) == ["base", "one", "two"]
    for name, one in {"base": None, "one": adapter, "two": other}.items():
        alone = base.evaluate(ROWS, adapter=one, max_new_tokens=6, compare=False)
        assert dict(comparison[name]) == dict(alone)
        assert comparison[name].intervals == alone.intervals
        assert list(comparison[name].predictions) == list(alone.predictions)


def test_differences_are_of_each_two_and_each_score(comparison):
    pairs = {(one.first, one.second) for one in comparison.differences}
    assert pairs == {("one", "base"), ("two", "base"), ("two", "one")}
    assert {one.score for one in comparison.differences} == {*comparison["one"]} - {"perplexity"}
    tests = {one.score: one.test for one in comparison.differences}
    assert (tests["loss"], tests["accuracy"], tests["f1"]) == ("permutation", "mcnemar", "permutation")
    for one in comparison.differences:
        assert one.value == pytest.approx(comparison[one.first][one.score] - comparison[one.second][one.score])
        low, high = one.interval or (one.value, one.value)
        assert low <= one.value <= high
        assert 0 < one.p_value <= 1


def test_rows_are_paired(comparison):
    """Rows that are hard for both make both losses spread, but not their difference."""
    first, second = comparison["one"].sampled["loss"], comparison["base"].sampled["loss"]
    sampled = on_samples({"a": first, "b": second}, 4, 1000, 0)
    paired = difference_interval(first, second, (sampled["a"], sampled["b"]), 0.95)
    apart = np.random.default_rng(0).permutation(sampled["b"])
    (found,) = [one for one in comparison.differences if (one.score, one.first) == ("loss", "one")]
    assert found.interval == paired
    assert found.interval != difference_interval(first, second, (sampled["a"], apart), 0.95)


def test_answers_stand_side_by_side(comparison):
    assert [one["expected"] for one in comparison.answers] == [row["completion"] for row in ROWS]
    assert [one["prompt"] for one in comparison.answers] == [row["prompt"] for row in ROWS]
    for place, row in enumerate(comparison.answers):
        assert row["answers"] == {name: one.predictions[place] for name, one in comparison.items()}
    assert comparison.differing() == [one for one in comparison.answers if len(set(one["answers"].values())) > 1]
    assert comparison.differing(), "all answer the same: the test is blind"


def test_an_adapter_differs_from_itself_in_nothing(base, adapter):
    found = compare(base, ROWS, {"one": adapter, "same": adapter}, max_new_tokens=3)
    alike = [one for one in found.differences if "base" not in (one.first, one.second)]
    assert {one.value for one in alike} == {0.0}
    assert {one.p_value for one in alike} == {1.0}


def test_all_of_it_is_json(comparison):
    said = json.loads(json.dumps(comparison.to_json(answers=True), allow_nan=False))
    assert said["adapters"]["one"]["scores"] == dict(comparison["one"])
    assert len(said["differences"]) == len(comparison.differences)
    assert said["answers"] == comparison.answers


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ({}, "compare needs an adapter"),
        ({"base": None}, "compare needs an adapter"),
        ({"a": "folder"}, "compare takes one adapter, a Stack, a Blend or None, not 'folder'"),
        ({"": None}, "adapters by name"),
        ({1: None}, "adapters by name"),
        (["a"], "adapters by name"),
    ],
)
def test_what_cannot_be_compared(base, adapters, said):
    with pytest.raises(SelectionError, match=said):
        compare(base, ROWS, adapters)


def test_the_base_has_the_name_that_it_is_given(base, adapter):
    assert list(compare(base, ROWS[:1], {"plain": None, "base": adapter}, max_new_tokens=1)) == ["plain", "base"]
    with pytest.raises(SelectionError, match="'base' is what the base alone is called"):
        compare(base, ROWS, {"base": adapter})
