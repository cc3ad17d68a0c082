"""Texts of strangers are shown as they are, and nothing in them is hidden, turned round or endless."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from adapterkit.report import numbers
from adapterkit.report.texts import MOST, OPENING, fold, seen

anything = st.text(st.characters())  # halves of pairs too, which JSON can bring in


@given(anything)
def test_nothing_in_a_text_is_invisible_or_turns_it_round(text):
    shown = seen(text)
    shown.encode("utf-8")
    for character in shown:
        assert character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cs"}
        assert unicodedata.bidirectional(character) not in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }


def test_what_is_invisible_is_written_out():
    assert seen("a\u202eb") == "a⟨U+202E⟩b"
    assert seen("\x1b[31mred\x00") == "␛[31mred␀"
    assert seen("\ud83d") == "⟨U+D83D⟩"
    assert seen("hi\U000e0041\u200b") == "hi⟨U+E0041⟩⟨U+200B⟩"
    assert seen("line\r\nline\tend") == "line\nline\tend"
    assert seen("👩‍👩‍👧 العربية") == "👩‍👩‍👧 العربية"  # what belongs to a script or an emoji stays
    assert seen(3) == "3"


def test_a_long_text_is_folded_and_a_very_long_one_is_cut():
    assert fold("short").rest == ""
    long = fold("x" * (OPENING + 1))
    assert (len(long.opening), len(long.rest), long.missing) == (OPENING, OPENING + 1, 0)
    huge = fold("x" * 1_000_000)
    assert (len(huge.opening), len(huge.rest), huge.length, huge.missing) == (
        OPENING,
        MOST,
        1_000_000,
        1_000_000 - MOST,
    )
    assert fold("a\n" * 100).opening.count("\n") < 15


def test_turns_of_a_conversation_are_read_as_one():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert fold(turns).opening == "user: Hi\n\nassistant: Hello"
    assert json.loads(fold({"a": 1}).opening) == {"a": 1}


def test_numbers_are_read_at_a_glance():
    assert [numbers.number(x) for x in (0.35680, 143164.8, 1.41e-5, 3e12, 0, -2.5)] == [
        "0.3568",
        "143,165",
        "1.41e−5",
        "3e12",
        "0",
        "−2.500",
    ]
    assert [numbers.number(x) for x in (None, float("nan"), float("-inf"))] == ["–", "not a number", "−infinite"]
    assert [numbers.duration(x) for x in (1.26, 59.6, 62.3, 3725, 360_000)] == [
        "1.3 s",
        "1 min 0 s",
        "1 min 2 s",
        "1 h 2 min",
        "100 h 0 min",
    ]
    assert [numbers.memory(x) for x in (512, 5 * 2**20, 3 * 2**30)] == ["512 bytes", "5 MiB", "3.0 GiB"]
    assert [numbers.change(20.0, x) for x in (20.0, 21.0, 19.0, 200.0)] == ["±0.0%", "+5.0%", "−5.0%", "+900%"]
    assert numbers.change(0.0, 1.0) == "–"
    assert numbers.money(0.0043) == "0.0043"
    assert numbers.money(1234.5) == "1,234.50"
    assert numbers.moment("2026-11-23T06:59:10+02:00") == "2026-11-23 04:59 UTC"
    assert numbers.moment("yesterday") == "yesterday"
