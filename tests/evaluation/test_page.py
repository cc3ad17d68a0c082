"""The page on which people mark answers: in a real browser, with real keys."""

import json
import re
import time

import attrs
import pytest

from adapterkit.evaluation import read_marks
from adapterkit.evaluation.comparing import Comparison
from tests.evaluation.browser import opened

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> {{title}} \u2028 ü"


@pytest.fixture
def page(comparison, tmp_path):
    comparison.to_html(tmp_path / "page.html", title="Cards")
    return tmp_path / "page.html"


def text(tab, name):
    return tab.value(f"document.getElementById({name!r}).innerText")


def answers(tab):
    return tab.value("[...document.querySelectorAll('.answer .text')].map((one) => one.textContent)")


def headings(tab):
    return tab.value("[...document.querySelectorAll('.answer h4')].map((one) => one.firstChild.textContent)")


def downloaded(folder):
    path = folder / "marks.json"
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    return path


def test_answers_are_read_and_marked_with_keys(page, comparison, tmp_path):
    with opened(page, tmp_path) as tab:
        assert text(tab, "prompt") == comparison.answers[0]["prompt"]
        assert answers(tab) == list(comparison.answers[0]["answers"].values())
        assert headings(tab) == ["1 · base", "2 · one", "3 · two"]
        for key in ("2", "0", "9", "3", "ArrowLeft", "Backspace", "d"):
            tab.press(key)
        assert "2 marked" in text(tab, "about")
        assert re.search(r"one against base\s+1\s+0\s+1", text(tab, "mark-table"))
        marks = read_marks(downloaded(tmp_path))
        requests = [one["params"]["request"]["url"] for one in tab.seen if one["method"] == "Network.requestWillBeSent"]
        assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []
        assert len([url for url in requests if url.startswith("file:")]) == 1, "it fetches nothing but itself"
        assert not [one for one in tab.seen if one["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert marks.best == {0: "one", 1: None}
    assert marks.adapters == ("base", "one", "two")
    assert marks.blind == 0


def test_without_names_answers_are_shuffled_and_marks_name_the_right_one(comparison, tmp_path):
    many = [{**one, "row": row} for row in range(40) for one in comparison.differing()[:1]]
    wide = _with_answers(comparison, many)
    wide.to_html(tmp_path / "blind.html", blind=True)
    names = dict(zip(many[0]["answers"].values(), many[0]["answers"], strict=True))
    chosen, orders = [], set()
    with opened(tmp_path / "blind.html", tmp_path) as tab:
        assert "base" not in text(tab, "answers").split()
        assert not tab.value("document.getElementById('scores').offsetHeight")
        for _ in many:
            shown = answers(tab)
            orders.add(tuple(shown))
            assert [one.partition(" · ")[2] for one in headings(tab)] == ["Answer A", "Answer B", "Answer C"]
            chosen.append(names[shown[0]])
            tab.press("1")
        assert tab.value("document.getElementById('blind').textContent") == "All marked: show names"
        tab.press("d")
        marks = read_marks(downloaded(tmp_path))
        tab.press("b")
        assert tab.value("document.getElementById('scores').offsetHeight > 0")
    assert len(orders) > 1
    assert list(marks.best.values()) == chosen
    assert marks.blind == len(many)


def test_marks_are_there_when_the_page_is_opened_again(page, tmp_path):
    with opened(page, tmp_path) as tab:
        tab.press("1")
        assert "1 marked" in text(tab, "about")
        time.sleep(1)  # Chromium writes what a page keeps a little later
        tab.call("Page.reload")
        tab.wait(
            "document.readyState === 'complete' && document.getElementById('about').textContent.includes('1 marked')"
        )


def test_what_models_say_is_never_markup(comparison, tmp_path):
    hostile = _with_answers(
        comparison,
        [{"row": 0, "prompt": HOSTILE, "expected": HOSTILE, "answers": {name: HOSTILE + name for name in comparison}}],
    )
    hostile.to_html(tmp_path / "page.html", title=HOSTILE)
    with opened(tmp_path / "page.html", tmp_path) as tab:
        assert tab.value("document.title") == HOSTILE
        assert tab.value("document.getElementById('prompt').textContent") == HOSTILE
        assert tab.value("document.getElementById('prompt').children.length") == 0
        assert answers(tab) == [HOSTILE + name for name in hostile]
        assert tab.value("document.images.length") == 0


def test_the_policy_of_the_page_refuses_any_other_script(page, tmp_path):
    altered = page.read_text(encoding="utf-8").replace("</body>", "<script>document.title = 'taken'</script></body>")
    page.write_text(altered, encoding="utf-8")
    with opened(page, tmp_path) as tab:
        assert tab.value("document.title") == "Cards"
        assert "1 of" in text(tab, "place")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(page, tmp_path, width):
    with opened(page, tmp_path, width=width) as tab:
        assert tab.value("document.documentElement.scrollWidth") <= width
        boxes = tab.value("[...document.querySelectorAll('.answer')].map((one) => one.getBoundingClientRect().top)")
        assert len(set(boxes)) == (3 if width < 640 else 1), "below each other on a phone, side by side on a desk"
        small = (
            "[...document.querySelectorAll('button')].filter((one) => one.offsetHeight && one.offsetHeight < 44).length"
        )
        assert tab.value(small) == 0


def test_half_a_character_is_written_too(comparison, tmp_path):
    cut = _with_answers(
        comparison, [{"row": 0, "prompt": "\ud83d", "expected": "", "answers": dict.fromkeys(comparison, "")}]
    )
    assert "\\ud83d" in cut.to_html(tmp_path / "page.html")


def _with_answers(comparison, rows):
    """The same comparison, of other rows."""
    first, *rest = comparison
    found = {
        name: attrs.evolve(
            comparison[name],
            answered=[one["row"] for one in rows],
            prompts=[one["prompt"] for one in rows],
            references=[one["expected"] for one in rows],
            predictions=[one["answers"][name] for one in rows],
        )
        for name in (first, *rest)
    }
    made = Comparison(evaluations=found)
    assert json.dumps(made.answers)
    return made
