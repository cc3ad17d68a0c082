"""The bundled metrics, against scikit-learn's, Google's and the definitions."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit import Registry
from adapterkit_metrics.answers import correct, exact_matches
from adapterkit_metrics.kinds import are_labels, are_short, are_texts, some_json
from adapterkit_metrics.labels import MOST_CLASSES, class_details, macro_f1, macro_f1_on_samples
from adapterkit_metrics.objects import field_details, fields_right, same_values, valid
from adapterkit_metrics.rouge import rouge_1, rouge_2, rouge_l

labels = st.sampled_from(["ham", "spam", "other"])
pairs = st.lists(st.tuples(labels | st.just("nonsense"), labels), min_size=1, max_size=60)
words = st.lists(
    st.sampled_from(["The", "the", "cat,", "sat", "on", "a", "mat-x", "2", "day's", "it_is"]), max_size=12
).map(" ".join)


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("sklearn.metrics")


# -- labels -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(pairs=pairs)
def test_scores_are_those_of_scikit_learn(reference, pairs):
    given_answers, expected = map(list, zip(*pairs, strict=True))
    known = sorted(set(expected))
    assert np.mean(correct(given_answers, expected)) == pytest.approx(reference.accuracy_score(expected, given_answers))
    assert macro_f1(given_answers, expected)["f1"] == pytest.approx(
        reference.f1_score(expected, given_answers, labels=known, average="macro", zero_division=0)
    )
    details = class_details(given_answers, expected)
    each = reference.precision_recall_fscore_support(expected, given_answers, labels=known, zero_division=0)
    for k, one in enumerate(details["classes"]):
        want = [column[k] for column in each]
        assert [one["precision"], one["recall"], one["f1"], one["rows"]] == pytest.approx(want)
        assert one["given"] == given_answers.count(one["label"])
    others = [label if label in known else "~" for label in given_answers]
    matrix = reference.confusion_matrix(expected, others, labels=[*known, "~"])[:-1]
    assert details["matrix"] == matrix.tolist()


@settings(deadline=None, max_examples=30)
@given(pairs=pairs, seed=st.integers(0, 9))
def test_samples_all_at_once_are_those_one_by_one(pairs, seed):
    given_answers, expected = map(list, zip(*pairs, strict=True))
    samples = np.random.default_rng(seed).integers(0, len(pairs), (7, len(pairs)))
    one_by_one = [
        macro_f1([given_answers[k] for k in rows], [expected[k] for k in rows])["f1"] for rows in samples.tolist()
    ]
    assert macro_f1_on_samples(given_answers, expected, samples)["f1"] == pytest.approx(one_by_one)


def test_whitespace_around_answers_does_not_count_but_everything_else_does():
    assert correct([" a\n", "A", "a b"], ["a", "a ", "a"]) == [1.0, 0.0, 0.0]


def test_f1_is_the_mean_over_classes():
    # a: precision 2/3, recall 2/3; b: precision 1/2, recall 1/2
    assert macro_f1(["a", "a", "b", "a", "b"], ["a", "a", "a", "b", "b"]) == {"f1": pytest.approx(7 / 12)}


def test_nonsense_is_no_class_of_its_own():
    assert macro_f1(["a", "???", "!!!"], ["a", "a", "a"]) == {"f1": pytest.approx(0.5)}
    details = class_details(["a", "???", "???"], ["a", "a", "a"])
    assert details["matrix"] == [[1, 2]]
    assert details["confused"] == [{"expected": "a", "given": "???", "rows": 2}]


def test_many_classes_have_no_matrix_but_what_was_confused():
    expected = [f"label {k}" for k in range(MOST_CLASSES + 1)]
    details = class_details(["label 0", *expected[:-1]], expected)
    assert "matrix" not in details
    assert len(details["confused"]) == MOST_CLASSES


@pytest.mark.parametrize("score", [correct, macro_f1, exact_matches, rouge_l, valid, fields_right])
@pytest.mark.parametrize(
    ("given_answers", "expected", "part"), [([], [], "nothing to score"), (["a"], ["a", "b"], "1 answers for 2")]
)
def test_what_cannot_be_scored(score, given_answers, expected, part):
    with pytest.raises(ValueError, match=part):
        score(given_answers, expected)


# -- texts ------------------------------------------------------------------------------------------------------------


def test_exact_matches_are_those_of_squad():
    # examples of what its evaluation script does, step by step: lower case, no punctuation, no articles, single spaces
    same = [
        ("The  Eiffel-Tower!", "eiffeltower"),
        ("an answer", "Answer."),
        ("theatre", "Theatre"),
        ("U.S.", "us"),
        ("", "the"),
    ]
    apart = [("1,5", "1 5"), ("theatre", "atre"), ("café", "cafe")]
    assert exact_matches(*zip(*same, strict=True)) == [1.0] * len(same)
    assert exact_matches(*zip(*apart, strict=True)) == [0.0] * len(apart)


@settings(deadline=None)
@given(texts=st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_rouge_is_googles(texts):
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    got, want = map(list, zip(*texts, strict=True))
    names = {"rouge1": rouge_1, "rouge2": rouge_2, "rougeL": rouge_l}
    theirs = scorer.RougeScorer(list(names))
    for name, ours in names.items():
        expected = [theirs.score(target, given)[name].fmeasure for given, target in texts]
        assert ours(got, want) == pytest.approx(expected), name


def test_rouge_knows_letters_that_google_does_not():
    assert rouge_1(["größe"], ["Größe"]) == [1.0]
    assert rouge_1(["हिन्दी भाषा"], ["हिन्दी लिपि"]) == [0.5], "marks belong to their letters"
    assert rouge_2(["東京に行く"], ["東京へ行く"]) == [0.5], (
        "each sign is a word: 東京, 京に, に行, 行く against 東京, 京へ, へ行, 行く"
    )


def test_the_longest_common_subsequence_is_that_of_the_table():
    stream = random.Random(0)
    for _ in range(50):
        got, want = ([stream.choice("abcd") for _ in range(stream.randrange(1, 90))] for _ in range(2))
        table = [[0] * (len(want) + 1) for _ in range(len(got) + 1)]
        for i, a in enumerate(got):
            for j, b in enumerate(want):
                table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
        assert rouge_l([" ".join(got)], [" ".join(want)]) == [pytest.approx(2 * table[-1][-1] / (len(got) + len(want)))]


# -- JSON -------------------------------------------------------------------------------------------------------------

WANT = json.dumps({"name": "Ada", "age": 36, "address": {"city": "London"}, "tags": ["a", "b"]})


@pytest.mark.parametrize(
    ("got", "is_json", "right", "same"),
    [
        (WANT, 1, 1.0, 1),
        ('{"tags": ["a", "b"], "address": {"city": "London"}, "age": 36.0, "name": "Ada"}', 1, 1.0, 1),
        ('{"name": "Ada", "age": 37, "address": {"city": "London"}, "tags": ["b", "a"]}', 1, 0.4, 0),
        ('{"name": "Ada", "age": 36, "address": {"city": "London"}, "tags": ["a", "b"], "more": 1}', 1, 1.0, 0),
        ('{"name": "Ada"}', 1, 0.2, 0),
        ('{"address": "London", "name": {"Ada": 1}}', 1, 0.0, 0),
        (f"```json\n{WANT}\n```", 0, 0.0, 0),
        (f"Sure! {WANT}", 0, 0.0, 0),
        ('{"name": NaN}', 0, 0.0, 0),
        ("[" * 100_000, 0, 0.0, 0),
        ("1" * 10_000, 0, 0.0, 0),
        ("42", 1, 0.0, 0),
        ("", 0, 0.0, 0),
    ],
)
def test_json_is_scored_by_what_it_says(got, is_json, right, same):
    assert valid([got], [WANT]) == [is_json]
    assert fields_right([got], [WANT]) == [pytest.approx(right)]
    assert same_values([got], [WANT]) == [same]


@pytest.mark.parametrize(("got", "want"), [("[1]", "[true]"), ("[0]", "[false]"), ("[]", "{}"), ("[null]", "[0]")])
def test_values_of_another_type_are_others(got, want):
    assert same_values([got], [want]) == [0.0]
    assert fields_right([got], [want]) == [0.0]


def test_an_empty_list_is_a_value():
    assert same_values(["[]"], ["[]"]) == fields_right(["[]"], ["[]"]) == [1.0]
    assert same_values(['{"a": 1}'], ['{"a": 1, "b": []}']) == same_values(['{"a": 1, "b": []}'], ['{"a": 1}']) == [0.0]
    assert fields_right(['{"a": 1}'], ['{"a": 1, "b": []}']) == [0.5]


def test_rows_that_expect_no_json_are_left_out():
    assert [math.isnan(one) for one in fields_right(["{}", "hi", "7"], ["{}", "hello", "7"])] == [False, True, True]


def test_each_field_is_counted():
    got = ['{"a": 1, "b": {"c": [1, 2]}}', '{"a": 2}']
    want = ['{"a": 1, "b": {"c": [1, 3]}}', '{"a": 1}']
    assert field_details(got, want)["fields"] == [
        {"field": "a", "rows": 2, "right": 0.5},
        {"field": "b.c[]", "rows": 1, "right": 0.0},
    ]


# -- what applies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("references", "kinds"),
    [
        (["ham", "spam", "ham", "ham"], {are_labels}),
        (["balance not updated after cheque or cash deposit", "card arrival"] * 4, {are_labels}),
        (["Paris", "1945", "the Nile"], {are_labels, are_short}),
        (["The capital of France is Paris.", "It was signed in the year 1945."], {are_short, are_texts}),
        (['{"a": 1}', '{"a": 1}'], {some_json}),
        (["true", "7"], {are_labels, are_short}),
    ],
)
def test_what_kind_of_answers_are_expected(references, kinds):
    assert {kind for kind in (are_labels, are_short, are_texts, some_json) if kind(references)} == kinds


def test_the_bundled_metrics_are_found():
    found = {metric.name for metric in Registry().metrics()}
    assert found >= {"accuracy", "f1", "exact_match", "rouge_1", "rouge_2", "rouge_l"}
    assert found >= {"json_valid", "json_fields", "json_match"}
