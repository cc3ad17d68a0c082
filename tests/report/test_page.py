"""The report of a run: what it says of every kind of run, and that nobody's data can make it do anything."""

import json
import math
import re
import shutil
from unittest import mock

import pytest
from markupsafe import Markup

from adapterkit import Base, RunError, write_report
from adapterkit.report import rendering
from adapterkit.report.rendering import _file
from adapterkit.report.texts import seen
from adapterkit.testing import tiny_llama
from adapterkit_metrics.labels import class_details
from tests.report.pages import Page, hash_of
from tests.report.run_folders import EVALUATION, RUN, make_run, records

EVIL = (
    "</script><script>alert(1)</script></style></svg>\"' onload=alert(1) <img src=https://x.y/z> <!-- {{ 7*7 }} "
    "{% raw %} \u202egnp.exe \x00\x1b[31m \ud83d 👩‍👩‍👧 العربية &amp; ]]>"
)


def page_of(folder, **options):
    return Page(write_report(folder, **options).read_text(encoding="utf-8"))


def test_a_finished_run_says_what_was_gained_forgotten_and_paid(tmp_path):
    found = page_of(make_run(tmp_path / "cards"), price_per_hour=36.0)
    text = found.text
    assert "On 200 held-out rows, accuracy rose from 0.5% with the base alone to 81.5%." in text
    assert "Gain +81.0 points ✓ clearly better" in text
    assert "81.5% (75.5% to 86.5%)" in text
    assert "Forgetting +6.2% ≈ some" in text
    assert "replay none: replay= mixes general rows in" in text
    assert "Cost 1 min 2 s On CPU. tokens seen 84,769 tokens per second, all included 1,361 peak memory 1.1 GiB" in text
    assert "money, at 36.00 an hour 0.62" in text
    assert "12 training rows were longer than max_length=1024" in text
    assert "✓ as expected" in text
    assert "✗ differs" in text
    for title in ("Put right by the adapter", "Right before, not as expected now", "Not as expected, before and after"):
        assert f"{title} (1)" in text


def test_the_order_of_groups_puts_what_was_spoiled_first(tmp_path):
    text = page_of(make_run(tmp_path / "cards")).text
    assert text.index("not as expected now") < text.index("Put right by") < text.index("before and after (1)")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"status": "running", "finished": None},
            "! This run has not ended after 57 of 150 steps. It is still going on",
        ),
        (
            {"status": "interrupted", "reason": ""},
            "! This run was interrupted after 57 of 150 steps. resume=True goes on",
        ),
        (
            {"status": "failed", "reason": "the loss of step 57 is not finite: nan"},
            "✗ This run failed after 57 of 150 steps. The loss of step 57 is not finite: nan. There is no finished adapter.",
        ),
        (
            {"status": "stopped early", "reason": "loss did not fall", "best_step": 50},
            "! This run was stopped early after 57 of 150 steps. Loss did not fall. The adapter of step 50 was kept.",
        ),
    ],
)
def test_a_run_that_did_not_just_finish_says_so_first(tmp_path, changes, said):
    found = page_of(make_run(tmp_path / "cards", log=records(57), last_step=57, **changes))
    assert said in found.text
    assert found.text.index(said) < found.text.index("Gain")


def test_a_finished_run_says_nothing_of_the_kind(tmp_path):
    assert "This run" not in page_of(make_run(tmp_path / "cards")).text


def test_what_is_missing_is_named_with_the_option_that_gives_it(tmp_path):
    log = [{"step": 2, "loss": 3.0}, {"step": 4, "loss": 2.0}]
    folder = make_run(tmp_path / "cards", log=log, evaluation=None, eval_data=None)
    text = page_of(folder).text
    assert "The training loss fell from 3.000 at step 2 to 2.000 at step 4." in text
    assert "Gain – ○ not measured No held-out rows: give eval_data or eval_split" in text
    assert "Forgetting – ○ not measured No general text was held out: give general_data" in text
    assert "No loss on held-out rows: give eval_data or eval_split; eval_steps says how often it is measured." in text
    assert "No general rows were mixed in: give replay" in text
    (folder / "log.jsonl").write_text("")
    assert "Nothing was measured yet." in page_of(folder).text
    assert "the run ended before its first record" in page_of(folder).text


def test_held_out_rows_that_were_not_scored_still_show_a_gain_in_perplexity(tmp_path):
    text = page_of(make_run(tmp_path / "cards", log=records(57), evaluation=None, status="interrupted")).text
    assert "Answers were not scored: the run did not end well." in text
    assert "✓ better" in text
    assert "The loss on held-out rows fell from 11.90 at step 0 to" in text


def test_a_gain_within_the_intervals_is_not_called_one(tmp_path):
    scores = {**EVALUATION, "base": {"accuracy": 0.79}, "base_intervals": {"accuracy": [0.74, 0.84]}}
    assert "+2.5 points ≈ no clear difference" in page_of(make_run(tmp_path / "a", evaluation=scores)).text
    worse = {**EVALUATION, "base": {"accuracy": 0.95}, "base_intervals": {"accuracy": [0.93, 0.97]}}
    assert "−13.5 points ✗ clearly worse" in page_of(make_run(tmp_path / "b", evaluation=worse)).text
    alone = {**EVALUATION, "base": None, "base_intervals": {}}
    assert "base not measured" in page_of(make_run(tmp_path / "c", evaluation=alone)).text
    without = {**EVALUATION, "intervals": {}, "base_intervals": {}}
    text = page_of(make_run(tmp_path / "d", evaluation=without)).text
    assert "✓ better" in text
    assert "clearly" not in text


def test_forgetting_is_that_of_the_adapter_that_was_kept(tmp_path):
    log = [{"step": 0, "general_loss": 3.0}, {"step": 50, "general_loss": 3.002}, {"step": 100, "general_loss": 3.5}]
    kept = page_of(make_run(tmp_path / "a", log=log, best_step=50)).text
    assert "Forgetting +0.2% ✓ hardly any" in kept
    assert "Forgetting +64.9% ✗ much" in page_of(make_run(tmp_path / "b", log=log)).text


def test_a_loss_that_was_not_finite_is_told_and_drawn_round(tmp_path):
    log = [*records(20), {"step": 22, "loss": math.nan}, {"step": 24, "loss": math.inf}]
    found = page_of(make_run(tmp_path / "cards", log=log, status="failed"))
    assert "loss was not a finite number 2 times, first at step 22" in found.text
    paths = [a["d"] for tag, a in found.elements if tag == "path"]
    assert paths
    assert not [path for path in paths if "nan" in path or "inf" in path]


def test_rows_that_were_left_out_are_counted_by_reason(tmp_path):
    rows = [
        {"data": "data", "where": f"train.jsonl, line {n}", "reason": f"column 'x{n}' has {n} values"} for n in range(9)
    ]
    rows.append({"data": "eval_data", "where": "test.jsonl, line 3", "reason": "the completion is empty"})
    text = page_of(make_run(tmp_path / "cards", unusable=rows)).text
    assert "9 column … has … values train.jsonl, line 0; train.jsonl, line 1" in text
    assert "1 the completion is empty test.jsonl, line 3 (held out)" in text


def test_classes_and_confusions_are_shown(tmp_path):
    expected = ["ham", "ham", "ham", "spam", "spam"]
    given = ["ham", "ham", "spam", "spam", "what?"]
    details = {"f1": class_details(given, expected)}
    base = {"f1": class_details(["no"] * 5, expected)}
    text = page_of(
        make_run(tmp_path / "cards", evaluation={**EVALUATION, "details": details, "base_details": base})
    ).text
    assert "expected ↓ answered → ham spam none of these ham 2 1 · spam · 1 1" in text
    assert "f1: by class, the worst first" in text
    assert re.search(r"f1, base spam 2 .{0,4}50\.0% 50\.0% 50\.0% 0\.0% ham 3", text)  # the worse one first
    assert "spam what? 1" in text


def test_many_classes_have_no_matrix_but_all_are_there(tmp_path):
    labels = [f"label-{n}" for n in range(77)]
    details = {"f1": class_details(labels[1:] + labels[:1], labels)}
    text = page_of(make_run(tmp_path / "cards", evaluation={**EVALUATION, "details": details})).text
    assert "answered →" not in text
    assert "67 more" in text
    assert all(f" {label} " in text for label in labels)


def test_the_adapter_is_loaded_again_with_three_lines(tmp_path):
    base = {"name": 'or"g/mod\\el', "revision": "abc", "fingerprint": "f"}
    text = write_report(make_run(tmp_path / "cards", base=base, quantize="nf4")).read_text()
    code = re.search(r"<pre><code>(.*?)</code>", text, re.DOTALL)[1].replace("&#34;", '"')
    assert len(code.splitlines()) == 3
    base = mock.Mock()
    with mock.patch("adapterkit.base.Base", base):
        exec(code)
    base.assert_called_once_with('or"g/mod\\el', revision="abc", quantize="nf4")
    base().load.assert_called_once_with(str(tmp_path / "cards" / "adapter"))
    base().use.assert_called_once_with(base().load())


# -- nothing is fetched, nothing is run -------------------------------------------------------------------------------


def evil_run(folder):
    examples = [
        {"prompt": EVIL, "expected": EVIL * 200, "base": "x" * 1_000_000, "adapter": EVIL},
        {"prompt": [{"role": EVIL, "content": EVIL}], "expected": {"a": EVIL}, "base": None, "adapter": 3},
    ]
    details = {EVIL: {EVIL: [{EVIL: EVIL, "rows": 3}]}, "f1": class_details([EVIL, "a", "b"], ["a", EVIL, "b"])}
    scores = {"scores": {EVIL: 0.5, "accuracy": 0.1}, "base": {EVIL: 0.2}, "details": details, "examples": examples}
    run = dict.fromkeys(("method", "objective", "plugin", "device", "started", "finished", "reason", "adapter"), EVIL)
    run |= {"base": dict.fromkeys(("name", "revision", "fingerprint"), EVIL), "versions": {EVIL: EVIL}}
    run |= {"options": {EVIL: EVIL, "list": [EVIL] * 99}, "config": {EVIL: {EVIL: EVIL}}, "quantize": EVIL}
    run |= {"data": {**RUN["data"], "digest": EVIL}, "status": "failed"}
    unusable = [{"data": EVIL, "where": EVIL, "reason": EVIL}, {"data": 3, "reason": {"a": EVIL}}]
    return make_run(folder, evaluation={**EVALUATION, **scores}, unusable=unusable, **run)


def test_what_strangers_wrote_stays_text(tmp_path):
    plain, evil = page_of(make_run(tmp_path / "plain")), page_of(evil_run(tmp_path / "evil"))
    kinds = {tag for tag, _ in evil.elements}
    assert kinds <= {tag for tag, _ in plain.elements} | {"details", "summary", "small", "strong"}
    assert "img" not in kinds
    assert not [a for _, a in evil.elements if any(name.startswith("on") for name in a)]
    assert sum(tag == "script" for tag, _ in evil.elements) == 1
    assert evil.code == plain.code
    assert "{{ 7*7 }}" in evil.text
    assert "⟨U+202E⟩" in evil.text
    assert not re.search("[\u202e\x00\x1b]", evil.text)


def test_the_guard_sees_a_text_that_is_not_escaped(tmp_path):
    def unescaped(value):
        return Markup(seen(value))

    rendering._environment.cache_clear()
    try:
        with mock.patch.dict(rendering.FILTERS, {"seen": unescaped}):
            found = page_of(evil_run(tmp_path / "evil"))
    finally:
        rendering._environment.cache_clear()
    assert "img" in {tag for tag, _ in found.elements}
    assert "img src=https://x.y/z" in found.fetched()


@pytest.mark.parametrize("make", [make_run, evil_run])
def test_a_report_fetches_nothing(tmp_path, make):
    found = page_of(make(tmp_path / "cards"))
    assert found.fetched() == []
    assert found.policy == {
        "default-src": "'none'",
        "style-src": hash_of(found.code["style"][0]),
        "script-src": hash_of("".join(found.code["script"])),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize(
    "fragment",
    [
        "<img src='https://a.org/x.png'>",
        "<a href='https://a.org'>x</a>",
        "<style>p { background: url(https://a.org/x) }</style>",
        "<p style='background: url(x)'>",
        "<style>@import 'x';</style>",
        "<link rel=stylesheet href=x>",
        "<script>fetch('https://a.org')</script>",
        "<meta http-equiv=refresh content='0; url=https://a.org'>",
        "<svg><use xlink:href='https://a.org#a'/></svg>",
    ],
)
def test_something_that_is_fetched_would_be_seen(fragment):
    assert Page(fragment).fetched()


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_report_of_many_records_stays_small(tmp_path):
    folder = make_run(tmp_path / "long", log=records(200_000), steps=200_000, last_step=200_000)
    assert len((folder / "log.jsonl").read_text().splitlines()) > 100_000
    assert write_report(folder).stat().st_size < 1_000_000


def test_the_last_report_stays_when_a_new_one_cannot_be_written(tmp_path):
    folder = make_run(tmp_path / "cards")
    before = write_report(folder).read_bytes()
    with (
        mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")),
        pytest.raises(RunError, match=r"the report is not written to '.*report\.html': No space left on device"),
    ):
        write_report(folder, price_per_hour=1.0)
    assert (folder / "report.html").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "log.jsonl", "report.html", "run.json"]


def test_a_file_of_somebody_else_is_not_written_over(tmp_path):
    folder = make_run(tmp_path / "cards")
    mine = tmp_path / "notes.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(RunError, match="no report of adapterkit and would be lost; give another name"):
        write_report(folder, path=mine)
    assert mine.read_text() == "<p>mine</p>"
    with pytest.raises(RunError, match="is a folder; give the name of a file"):
        write_report(folder, path=tmp_path)
    assert write_report(folder, path=tmp_path / "new" / "a.html").is_file()
    assert write_report(folder, path=tmp_path / "new" / "a.html").is_file()


def test_the_same_run_has_the_same_report(tmp_path):
    folder = make_run(tmp_path / "cards")
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_colours_can_be_told_from_the_page_in_both_themes():
    style = _file("style.css")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        lines = [colours[f"c{n}"] for n in range(8)]
        assert len(set(lines)) == 8
        wanted = dict.fromkeys((f"c{n}" for n in range(8)), 3.0)
        wanted |= dict.fromkeys(("ink", "soft", "good", "bad", "warn", "link"), 4.5)
        for name, least in wanted.items():
            assert contrast(colours[name], colours["paper"]) >= least, name


def contrast(one, other):
    """WCAG 2's contrast ratio."""

    def luminance(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# -- a real run -------------------------------------------------------------------------------------------------------


def test_a_real_run_has_a_report_with_all_its_parts(tmp_path, example_base):
    base = Base(tiny_llama(vocab_size=8192, max_position_embeddings=1024), tokenizer=example_base.tokenizer)
    rows = [{"prompt": f"Where is card {n}?", "completion": ("card_arrival", "lost_card")[n % 2]} for n in range(12)]
    held_out = rows[8:]
    base.train(rows[:8], eval_data=held_out, rank=2, max_steps=3, eval_steps=2, logging_steps=1, output=tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "moved")
    found = page_of(tmp_path / "moved")
    parts = ("lora adapter for", "On 4 held-out rows, accuracy", "Data audit", "Provenance", "Load it again")
    curves = ("Loss", "Perplexity of general text", "Learning rate", "Gradient norm", "Speed")
    assert [part for part in (*parts, *curves) if part not in found.text] == []
    assert found.fetched() == []
    record = json.loads((tmp_path / "moved" / "run.json").read_text())
    assert record["adapter"] in found.text
