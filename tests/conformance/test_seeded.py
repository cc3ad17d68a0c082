"""The kit itself: every check catches the bug that it is for, and lets good methods pass."""

import random
import re
from pathlib import Path

import attrs
import pytest

from adapterkit import Traits
from adapterkit.testing import CHECKS, run
from tests.conformance import seeded, seeded_algebra

BUGS = (*seeded.BUGS, *seeded_algebra.BUGS)
SEEDED = [Path(__file__).with_name(name) for name in ("seeded.py", "seeded_algebra.py")]
IN_A_PROCESS_OF_THEIR_OWN = {"importing_changes_nothing_else", "a_fresh_process_answers_the_same"}
NOISY = Path(__file__).with_name("noisy.py")


@pytest.fixture(autouse=True)
def _random_state():
    before = random.getstate()
    yield
    random.setstate(before)


@pytest.mark.parametrize("name", [method.name for method in (*seeded.GOOD, *seeded_algebra.GOOD)])
def test_a_good_method_passes(name):
    here = None if name == "good" else set(CHECKS) - IN_A_PROCESS_OF_THEIR_OWN
    wrong = [r for r in run(name, plugin=SEEDED, only=here) if r.outcome not in ("passed", "does not apply")]
    assert wrong == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.check}-{bug.method.name}")
def test_every_check_catches_the_bug_that_it_is_for(bug):
    (result,) = run(bug.method.name, plugin=NOISY if bug.method.name == "noisy" else SEEDED, only=[bug.check])
    assert result.outcome == "failed"
    assert re.search(bug.said, result.reason), result.reason


def test_every_check_has_a_bug():
    assert {bug.check for bug in BUGS} == set(CHECKS)


def test_every_trait_has_a_method_that_lies_about_it():
    assert {bug.trait for bug in BUGS} - {""} == {field.name for field in attrs.fields(Traits)}
