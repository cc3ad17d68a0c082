"""Curves say what the log says: thinned without losing a peak, smoothed without being late, on axes that can be read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.report.charts import Line, draw
from adapterkit.report.scales import make_scale
from adapterkit.report.series import series, smooth, thin

values = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30)


@given(st.lists(values, min_size=1, max_size=500), st.integers(1, 60))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(found, buckets):
    points = tuple(enumerate(found))
    kept = thin(points, buckets)
    assert set(kept) <= set(points)
    assert list(kept) == sorted(kept)
    assert len(kept) <= 2 * buckets + 2
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert min(value for _, value in kept) == min(found)
    assert max(value for _, value in kept) == max(found)


def test_one_peak_among_many_records_is_kept():
    points = tuple((step, 100.0 if step == 54_321 else 1.0) for step in range(100_000))
    assert (54_321, 100.0) in thin(points, 400)


def test_steps_that_were_taken_again_after_a_resume_count_once():
    log = [{"step": n, "loss": 10.0 + n} for n in range(1, 8)] + [{"step": n, "loss": float(n)} for n in range(5, 10)]
    assert series(log, "loss").points == (
        (1, 11.0),
        (2, 12.0),
        (3, 13.0),
        (4, 14.0),
        *((n, float(n)) for n in range(5, 10)),
    )


def test_values_that_are_not_finite_are_no_points_but_are_not_forgotten():
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": math.inf}]
    log += [
        {"step": 4, "loss": 10**400},
        {"step": 5, "loss": "high"},
        {"step": 6, "loss": None},
        {"step": 7, "loss": 1.0},
    ]
    found = series(log, "loss")
    assert found.points == ((1, 2.0), (7, 1.0))
    assert found.lost == (2, 3, 4)


def test_a_value_is_found_at_a_step_or_before_it():
    found = series([{"step": step, "eval_loss": float(step)} for step in (0, 50, 100)], "eval_loss")
    assert [found.at(step) for step in (None, 100, 99, 50, 0)] == [100.0, 100.0, 50.0, 50.0, 0.0]
    assert series([], "eval_loss").at(None) is None


def test_smoothing_keeps_a_straight_line_as_it_is():
    line = tuple((step, 3.0 * step) for step in range(200))
    assert [step for step, _ in smooth(line)] == list(range(200))
    assert [value for _, value in smooth(line)] == pytest.approx([value for _, value in line])
    noisy = tuple((step, 5.0 + (-1) ** step) for step in range(200))
    assert max(abs(value - 5) for _, value in smooth(noisy)[5:-5]) < 0.2
    assert smooth(line[:10]) == ()


@given(st.lists(values, min_size=1, max_size=20), st.booleans(), st.booleans())
def test_every_value_has_a_place_on_its_axis(found, linear, few):
    scale = make_scale(found, 3 if few else 6, linear=linear)
    for value in found:
        assert -1e-6 <= scale.place(value) <= 1 + 1e-6
    places = [scale.place(value) for value, _ in scale.ticks]
    assert places == sorted(places)
    assert len(places) <= 14
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    labels = [label for _, label in scale.ticks]
    assert all(0 < len(label) < 14 for label in labels)


@pytest.mark.parametrize(
    ("found", "labels"),
    [
        ([0.4, 12.0], ["0.5", "1", "2", "5", "10"]),
        ([0.0, 2e-3], ["0", "0.0005", "0.0010", "0.0015", "0.0020"]),
        ([31.0, 33.0], ["31.0", "31.5", "32.0", "32.5", "33.0"]),
        ([1e-6, 4e-6], ["0", "1e−6", "2e−6", "3e−6", "4e−6"]),
        ([5.0, 5.0], ["4.6", "4.8", "5.0", "5.2", "5.4"]),
        ([1500.0, 25000.0], ["0", "5k", "10k", "15k", "20k", "25k"]),
    ],
)
def test_ticks_are_at_numbers_that_are_easy_to_read(found, labels):
    shown = [label for _, label in make_scale(found, 4).ticks]
    assert shown == labels


def test_an_axis_of_steps_begins_at_the_first_and_ends_at_the_last():
    scale = make_scale([0, 100_000], 6, steps=True)
    assert (scale.low, scale.high) == (0, 100_000)
    assert [label for _, label in scale.ticks] == ["0", "20k", "40k", "60k", "80k", "100k"]
    assert [label for _, label in make_scale([0, 0], 6, steps=True).ticks] == ["0", "1"]


def test_a_chart_says_in_words_what_it_shows():
    chart = draw("loss", "Loss", "nats", [Line(name="training", points=((0, 4.0), (10, 1.0), (20, 2.0)))])
    assert chart.about == "training: 4.000 at step 0, 2.000 at step 20, least 1.000."
    assert chart.table == (("step", "training"), (("0", "4.000"), ("10", "1.000"), ("20", "2.000")))
    assert draw("loss", "Loss", "nats", [Line(name="training", points=())]) is None
