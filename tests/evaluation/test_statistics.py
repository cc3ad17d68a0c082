"""Intervals and tests: they hold as often as they say, and are those of scipy where it has them."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from adapterkit.evaluation.intervals import bootstrap, difference_interval, newcombe, score_interval, wilson
from adapterkit.evaluation.samples import AT_ONCE, Ratio, Whole, draw, on_samples
from adapterkit.evaluation.significance import compare_scores, sign_flips, sign_test

scipy_stats = pytest.importorskip("scipy.stats")


def interval_of(score, rows, resamples=1000, seed=0, confidence=0.95):
    return score_interval(score, on_samples({"score": score}, rows, resamples, seed)["score"], confidence)


def held(intervals, truth):
    """How often an interval holds the truth."""
    return np.mean([low <= truth <= high for low, high in intervals])


# -- samples ----------------------------------------------------------------------------------------------------------


def test_samples_are_repeatable_and_in_parts_that_fit():
    ones, others = (np.concatenate(list(draw(AT_ONCE // 3, 7, seed=1))) for _ in range(2))
    assert np.array_equal(ones, others)
    assert [len(part) for part in draw(AT_ONCE // 3, 7, seed=1)] == [3, 3, 1]
    assert ones.min() == 0
    assert ones.max() < AT_ONCE // 3
    assert not np.array_equal(ones, np.concatenate(list(draw(AT_ONCE // 3, 7, seed=2))))


def test_a_ratio_leaves_out_what_says_nothing():
    score = Ratio.mean([1.0, math.nan, 0.5])
    assert score.value == 0.75
    assert score.on(np.array([[0, 1, 1], [2, 2, 0], [1, 1, 1]]))[:2].tolist() == [1.0, pytest.approx(2 / 3)]
    assert math.isnan(score.on(np.array([[1, 1, 1]]))[0])
    assert math.isnan(Ratio.mean([math.nan]).value)


def test_a_loss_is_per_token_not_per_row():
    score = Ratio(np.array([2.0, 9.0]), np.array([1.0, 3.0]))
    assert score.value == 11 / 4
    assert score.on(np.array([[0, 0], [0, 1]])).tolist() == [2.0, 11 / 4]


# -- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "rows"), [(0, 5), (5, 5), (1, 9), (80, 100), (3079, 3080)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_a_share_is_scipys(right, rows, confidence):
    want = scipy_stats.binomtest(right, rows).proportion_ci(confidence, method="wilson")
    assert wilson(right, rows, confidence) == pytest.approx((want.low, want.high), abs=1e-12)


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).lognormal(size=60)
    want = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    spread = want.high - want.low
    assert interval_of(Ratio.mean(values), 60, 20_000) == pytest.approx((want.low, want.high), abs=0.03 * spread)
    plain = np.quantile(on_samples({"m": Ratio.mean(values)}, 60, 20_000, 0)["m"], [0.025, 0.975])
    assert abs(plain[1] - want.high) > 0.04 * spread, "the correction changes nothing here: the test is blind"


def test_the_published_example_of_a_difference_of_shares():
    """Newcombe 1998, table II: 36, 12, 2, 0 of 50 patients."""
    first = np.array([True] * 36 + [True] * 12 + [False] * 2)
    second = np.array([True] * 36 + [False] * 12 + [True] * 2)
    assert newcombe(first, second, 0.95) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_intervals_hold_as_often_as_they_say():
    stream = np.random.default_rng(0)
    shares, means, losses, differences = [], [], [], []
    for trial in range(300):
        shares.append(interval_of(Ratio.mean((stream.random(40) < 0.9).astype(float)), 40, 200))
        means.append(interval_of(Ratio.mean(stream.lognormal(0, 0.7, 60)), 60, 400, seed=trial))
        tokens = stream.integers(1, 20, 60).astype(float)
        losses.append(interval_of(Ratio(stream.gamma(2.0, 0.5, 60) * tokens, tokens), 60, 400, seed=trial))
        hard = stream.random(60)
        one, other = (Ratio.mean((stream.random(60) < hard**power).astype(float)) for power in (0.5, 1.0))
        differences.append(difference_interval(one, other, (np.zeros(2), np.zeros(2)), 0.95))
    # of 300 intervals that hold with 95%, 99.9% of runs have between 90% and 99% that do
    assert 0.90 <= held(shares, 0.9) <= 0.99
    assert 0.88 <= held(means, math.exp(0.7**2 / 2)) <= 0.99
    assert 0.90 <= held(losses, 1.0) <= 0.99
    assert 0.90 <= held(differences, 2 / 3 - 1 / 2) <= 0.99
    assert held(means, 0.8 * math.exp(0.7**2 / 2)) < 0.7, "intervals that hold everything would pass too"


def test_a_bootstrap_of_right_answers_alone_would_be_sure_and_this_is_not():
    score = Ratio.mean([1.0] * 20)
    assert bootstrap(1.0, on_samples({"s": score}, 20, 100, 0)["s"], 0.95) is None
    low, high = interval_of(score, 20)
    assert 0.8 < low < 0.9
    assert high == 1.0


def test_no_rows_have_no_interval():
    assert all(map(math.isnan, wilson(0, 0, 0.95)))
    assert all(map(math.isnan, newcombe(np.array([], bool), np.array([], bool), 0.95)))


# -- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (3, 3), (0, 6), (10, 2), (2, 10), (1500, 1400), (700, 0)])
def test_the_sign_test_is_scipys(better, worse):
    want = scipy_stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_test(better, worse) == pytest.approx(want, rel=1e-9)


def test_the_permutation_test_is_scipys():
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    want = scipy_stats.permutation_test(
        (differences, np.zeros(40)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).pvalue
    assert sign_flips(differences, seed=0, flips=20_000) == pytest.approx(want, abs=0.01)
    assert sign_flips(np.zeros(5), seed=0) == 1.0


def mean_of_texts(predictions, references, samples):
    """A score that is only known of all rows together."""
    return np.array(list(map(float, predictions)))[samples].mean(1)


def test_a_score_of_the_whole_is_tested_as_its_rows_would_be():
    stream = np.random.default_rng(0)
    pair = [Ratio.mean(stream.normal(shift, 1, 40)) for shift in (0, 0.4)]
    wholes = [Whole(one.value, list(map(str, one.sums)), [""] * 40, mean_of_texts) for one in pair]
    assert compare_scores(*wholes, 0, 5000)[0] == pytest.approx(compare_scores(*pair, 0)[0], abs=0.02)
    assert compare_scores(wholes[0], wholes[0], 0)[0] == 1.0


def test_two_rows_prove_nothing():
    one, other = (Whole(value, texts, ["a", "b"], first_right) for value, texts in ((1.0, ["a", "b"]), (0.0, ["", ""])))
    assert compare_scores(one, other, 0)[0] > 0.4


def first_right(predictions, references, samples):
    return np.array([float(all(predictions[k] == references[k] for k in rows)) for rows in samples])


def test_equal_adapters_are_rarely_called_different_and_unequal_ones_often():
    stream = np.random.default_rng(0)
    found = {test: [] for test in ("mcnemar", "permutation", "whole")}
    power = {test: [] for test in found}
    for trial in range(200):
        hard = stream.random(80)
        for shift, into in ((0.0, found), (0.25, power)):
            shares = [Ratio.mean((stream.random(80) < hard + way * shift).astype(float)) for way in (0, 1)]
            values = [Ratio.mean(hard + stream.exponential(0.5, 80) + way * shift) for way in (0, 1)]
            wholes = [Whole(one.value, list(map(str, one.sums)), [""] * 80, mean_of_texts) for one in values]
            for kind, pair in (("mcnemar", shares), ("permutation", values), ("whole", wholes)):
                p_value, test = compare_scores(*pair, trial, 200)
                assert test == ("mcnemar" if kind == "mcnemar" else "permutation")
                into[kind].append(p_value <= 0.05)
    for test, called in found.items():
        assert len(called) == 200
        # 5% of 200 runs, and what chance adds to it; an exact test of whole numbers is called less often
        assert np.mean(called) <= 0.095, test
        assert np.mean(power[test]) >= 0.6, test


def test_the_order_of_two_turns_the_difference_and_nothing_else():
    stream = np.random.default_rng(0)
    one, other = (Ratio.mean(stream.random(30)) for _ in range(2))
    sampled = on_samples({"one": one, "other": other}, 30, 500, 0)
    ahead = difference_interval(one, other, (sampled["one"], sampled["other"]), 0.95)
    behind = difference_interval(other, one, (sampled["other"], sampled["one"]), 0.95)
    assert ahead == pytest.approx((-behind[1], -behind[0]), abs=1e-9)
    assert compare_scores(one, other, 0) == compare_scores(other, one, 0)


def test_a_higher_confidence_is_a_wider_interval():
    values = Ratio.mean(np.random.default_rng(0).random(50))
    (low, high), (lower, higher) = (interval_of(values, 50, confidence=confidence) for confidence in (0.8, 0.99))
    assert lower < low < values.value < high < higher
    assert NormalDist().inv_cdf(0.9) == pytest.approx((high - low) / 2 / (values.sums.std() / math.sqrt(50)), rel=0.15)
