"""Marks of people: summed up for each two, and refused where they are none."""

import json

import pytest

from adapterkit import DataError
from adapterkit.evaluation import read_marks, sum_up

GOOD = {
    "schema": 1,
    "kind": "adapterkit marks",
    "comparison": "abc",
    "adapters": ["base", "one", "two"],
    "marks": [
        {"row": 0, "best": "one", "blind": True},
        {"row": 3, "best": None, "blind": True},
        {"row": 4, "best": "one"},
        {"row": 7, "best": "base", "blind": False},
    ],
}


@pytest.fixture
def marked(tmp_path):
    def write(content, name="marks.json"):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / name

    return write


def test_marks_are_summed_up_for_each_two(marked):
    marks = read_marks(marked(GOOD))
    assert marks.best == {0: "one", 3: None, 4: "one", 7: "base"}
    assert marks.blind == 2
    found = {(one.first, one.second): (one.better, one.worse, one.ties) for one in sum_up([marks])}
    assert found == {("one", "base"): (2, 1, 1), ("two", "base"): (0, 1, 1), ("two", "one"): (0, 2, 1)}


def test_several_readers_add_up_and_the_p_value_is_of_all(marked):
    found = {(one.first, one.second): one for one in sum_up([read_marks(marked(GOOD))] * 5)}
    assert (found["two", "one"].better, found["two", "one"].worse) == (0, 10)
    assert found["two", "one"].p_value == pytest.approx(2 / 2**10)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "no 'adapterkit marks' in it"),
        ("{}", "no 'adapterkit marks' in it"),
        ({**GOOD, "schema": 2}, "schema 2 is not 1"),
        ({**GOOD, "adapters": "base"}, "adapters must be a list"),
        ({**GOOD, "marks": [{"row": 0, "best": "three"}]}, "a mark for 'three'"),
        ({**GOOD, "marks": [{"row": True, "best": "one"}]}, "in row True"),
        ({**GOOD, "marks": [{"row": 0, "best": "one"}] * 2}, "row 0 is marked twice"),
        ({**GOOD, "marks": [{"row": 0}]}, "'best'"),
        ({**GOOD, "marks": [7]}, "holds no marks"),
        ({name: value for name, value in GOOD.items() if name != "marks"}, "'marks'"),
    ],
)
def test_what_is_no_file_of_marks(marked, content, said):
    with pytest.raises(DataError, match=said):
        read_marks(marked(content))


def test_what_cannot_be_summed_up(marked, tmp_path):
    with pytest.raises(DataError, match="nothing was marked"):
        sum_up([read_marks(marked({**GOOD, "marks": []}))])
    with pytest.raises(DataError, match="different comparisons"):
        sum_up([read_marks(marked(GOOD)), read_marks(marked({**GOOD, "comparison": "xyz"}, "other.json"))])
    with pytest.raises(DataError, match="cannot be read"):
        read_marks(tmp_path / "none.json")
