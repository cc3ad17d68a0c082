"""An audit as a page and at a terminal."""

import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from adapterkit import DataError
from adapterkit.audit import audit, audit_page, audit_section
from adapterkit.audit.lengths import histogram
from adapterkit.audit.terminal import show

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "rect", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag, f"</{tag}>"


def hostile():
    rows = [{"prompt": f"{HOSTILE} {i % 3}?", "completion": HOSTILE if i % 2 else f"<b>{i % 4}"} for i in range(40)]
    rows += [{"prompt": HOSTILE, "completion": "<i>"}] * 3
    return audit(
        None,
        [*rows, {"prompt": HOSTILE, "completion": ""}],
        eval_data=[*rows[:6], {"prompt": "?", "completion": "<u>"}],
    )


def with_memory(found):
    memory = {
        "verbatim": {
            "tokens": 50,
            "training": {"rows": 100, "adapter": 0.25, "base": 0.0},
            "held_out": {"rows": 0, "adapter": None, "base": None},
        },
        "canaries": {
            "alternatives": 255,
            "most": 8.0,
            "chance": 1.44,
            "adapter": 8.0,
            "base": 1.0,
            "said": 1,
            "each": [
                {
                    "prompt": HOSTILE,
                    "repeats": 4,
                    "adapter": {"rank": 1, "exposure": 8.0},
                    "base": {"rank": 128, "exposure": 1.0},
                    "said": True,
                }
            ],
        },
    }
    return {**found, "memorisation": memory}


def test_the_page_is_whole_and_shows_every_finding():
    found = hostile()
    elements = Elements(found.html())
    assert not elements.open
    titles = re.findall(r"<h4>([^<]+)</h4>", found.html())
    assert {
        "Exact duplicates",
        "Conflicting completions",
        "Labels never seen",
        "Unusable rows",
        "Evaluation overlap",
    } <= set(titles)


def test_nothing_of_the_rows_becomes_markup():
    page = audit_page(with_memory(hostile().to_json()))
    elements = Elements(page).found
    assert not [tag for tag, _ in elements if tag in {"script", "img", "b", "i", "u"} and (tag, {}) not in ALLOWED]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert page.count("&lt;script&gt;") > 3
    assert "{{ 7 * 7 }}" in page


ALLOWED = [("b", {}), ("i", {})]


def test_bold_text_of_rows_is_escaped():
    page = hostile().html()
    assert "&lt;b&gt;0" in page
    assert "<b>0" not in page.replace('<b style="color: var(--audit-tone)">', "").replace("<b>0</b>", "")


def test_the_page_fetches_nothing():
    page = audit_page(with_memory(hostile().to_json()))
    elements = Elements(page).found
    assert not [tag for tag, _ in elements if tag in {"link", "script", "img", "iframe", "object", "base"}]
    assert not [
        name for _, attributes in elements for name in attributes if name in {"src", "href", "action", "srcset"}
    ]
    assert "url(" not in page
    assert "@import" not in page


def test_the_section_is_made_of_the_json_alone_and_styles_nothing_else():
    found = json.loads(json.dumps(with_memory(hostile().to_json())))
    section = audit_section(found)
    assert section in audit_page(found)
    assert section.startswith('<section class="audit">')
    style = re.sub(r"@media[^{]+\{", "", section.partition("<style>")[2].partition("</style>")[0])
    selectors = [one.strip() for rule in re.findall(r"([^{}]+)\{", style) for one in rule.split(",")]
    assert selectors
    assert all(one.startswith(".audit") for one in selectors)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"schema": 2},
        {"schema": 1},
        {"schema": 1, "findings": [{"severity": "worst"}]},
        {"findings": "x", "schema": 1},
    ],
)
def test_what_is_no_audit_is_refused(value):
    for render in (audit_page, audit_section):
        with pytest.raises(DataError, match="not an audit that can be shown"):
            render(value)


@pytest.mark.parametrize(
    "field", ["findings", "labels", "lengths", "rows", "source", "made", "eval_rows", "memorisation"]
)
def test_a_damaged_audit_is_refused_and_never_half_shown(field):
    found = with_memory(hostile().to_json())
    del found[field]
    with pytest.raises(DataError, match="not an audit that can be shown"):
        audit_page(found)


def test_a_terminal_is_told_the_same_in_plain_lines():
    lines = io.StringIO()
    show(hostile(), Console(file=lines, width=100))
    text = lines.getvalue()
    assert "serious  Labels never seen  1 (14.3%)" in text
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip() or len(line) > 100]
    colored = io.StringIO()
    show(hostile(), Console(file=colored, width=100, force_terminal=True))
    assert "\x1b[1;31m" in colored.getvalue()


def test_markup_of_the_terminal_in_rows_is_only_text():
    lines = io.StringIO()
    rows = [{"prompt": "[bold red]Hello[/] [link=http://x]y[/link]", "completion": "a[/]"}] * 4
    show(audit(None, rows), Console(file=lines, width=100))
    assert "[bold red]Hello[/]" in lines.getvalue()


def test_a_histogram_holds_every_length_once():
    lengths = [1] * 50 + list(range(100)) + [5000]
    shape = histogram("x", "tokens", lengths)
    assert sum(shape.counts) == len(lengths)
    assert len(shape.edges) == len(shape.counts) + 1
    assert shape.edges[0] <= 0
    assert shape.edges[-1] == 5001
    assert shape.edges[-2] < 200  # one long row does not squeeze the others together
    assert shape.quantiles == {"min": 0, "p50": 25, "p90": 85, "p99": 99, "max": 5000}
    assert histogram("x", "tokens", [7]).counts == (1,)
