"""The bundled metrics, against scikit-learn's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adapterkit_metrics
from adapterkit import Registry

labels = st.sampled_from(["ham", "spam", "other"])
pairs = st.lists(st.tuples(labels | st.just("nonsense"), labels), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("sklearn.metrics")


@settings(deadline=None)
@given(pairs=pairs)
def test_scores_are_those_of_scikit_learn(reference, pairs):
    given_answers, expected = map(list, zip(*pairs, strict=True))
    assert adapterkit_metrics.accuracy(given_answers, expected)["accuracy"] == pytest.approx(
        reference.accuracy_score(expected, given_answers)
    )
    assert adapterkit_metrics.f1(given_answers, expected)["f1"] == pytest.approx(
        reference.f1_score(expected, given_answers, labels=sorted(set(expected)), average="macro", zero_division=0)
    )


def test_whitespace_around_answers_does_not_count_but_everything_else_does():
    assert adapterkit_metrics.accuracy([" a\n", "A", "a b"], ["a", "a ", "a"]) == {"accuracy": pytest.approx(1 / 3)}


def test_f1_is_the_mean_over_classes():
    # a: precision 2/3, recall 2/3; b: precision 1/2, recall 1/2
    assert adapterkit_metrics.f1(["a", "a", "b", "a", "b"], ["a", "a", "a", "b", "b"]) == {"f1": pytest.approx(7 / 12)}


def test_nonsense_is_no_class_of_its_own():
    assert adapterkit_metrics.f1(["a", "???", "!!!"], ["a", "a", "a"]) == {"f1": pytest.approx(0.5)}


@pytest.mark.parametrize("score", [adapterkit_metrics.accuracy, adapterkit_metrics.f1])
@pytest.mark.parametrize(
    ("given_answers", "expected", "part"), [([], [], "nothing to score"), (["a"], ["a", "b"], "1 answers for 2")]
)
def test_what_cannot_be_scored(score, given_answers, expected, part):
    with pytest.raises(ValueError, match=part):
        score(given_answers, expected)


def test_the_bundled_metrics_are_found():
    assert {"accuracy", "f1"} <= {metric.name for metric in Registry().metrics()}
