"""Runs side by side: what differed, what came of it, and which is best where that can be said."""

import json

import pytest

from adapterkit import ConfigError, RunError, UnknownNameError, compare_runs
from adapterkit.cli import main
from tests.report.pages import Page
from tests.report.run_folders import EVALUATION, RUN, make_run, records


def scored(accuracy, interval=None):
    scores = {**EVALUATION["scores"], "accuracy": accuracy}
    intervals = {**EVALUATION["intervals"], "accuracy": interval or [accuracy - 0.02, accuracy + 0.02]}
    return {**EVALUATION, "scores": scores, "intervals": intervals}


@pytest.fixture
def runs(tmp_path):
    """Three runs of one task; the second is best and the third not clearly worse."""
    config = RUN["config"]
    return [
        make_run(
            tmp_path / "rank-4", config={**config, "rank": 4}, evaluation=scored(0.6), started="2026-01-01T00:00:00"
        ),
        make_run(
            tmp_path / "rank-16",
            config={**config, "rank": 16},
            evaluation=scored(0.82),
            started="2026-01-02T00:00:00",
            seconds=90.0,
            log=[*records(150)[:-1], {"step": 150, "general_loss": 3.41}],
        ),
        make_run(tmp_path / "rank-8", evaluation=scored(0.81), started="2026-01-03T00:00:00", seconds=30.0),
    ]


def names(comparison):
    return [run.name for run in comparison.runs]


def test_only_what_differs_is_listed(runs):
    found = compare_runs(runs)
    assert found.differences == {"rank": (4, 16, 8)}
    assert (
        compare_runs([runs[0], make_run(runs[0].parent / "copy", config={**RUN["config"], "rank": 4})]).differences
        == {}
    )


def test_circumstances_differ_too(runs, tmp_path):
    other = make_run(
        tmp_path / "other",
        data={**RUN["data"], "digest": "f" * 64, "rows": 99},
        replay={"digest": "a" * 64, "rows": 10},
        versions={"python": "3.12.1", "torch": "2.13.0"},
        device="NVIDIA H100",
    )
    found = compare_runs([runs[2], other]).differences
    assert found == {
        "data": ("dddddddddddd…", "ffffffffffff…"),
        "data, rows": (2400, 99),
        "replay": (None, "aaaaaaaaaaaa…"),
        "replay, rows": (None, 10),
        "device": ("cpu", "NVIDIA H100"),
        "version of python": ("3.11.7", "3.12.1"),
    }


def test_runs_are_sorted_and_keep_their_colour(runs):
    by_start, by_score = compare_runs(reversed(runs)), compare_runs(runs, sort="accuracy")
    assert names(by_start) == ["rank-4", "rank-16", "rank-8"]
    assert names(by_score) == ["rank-16", "rank-8", "rank-4"]
    assert names(compare_runs(runs, sort="seconds")) == ["rank-8", "rank-4", "rank-16"]
    assert names(compare_runs(runs, sort="name")) == ["rank-16", "rank-4", "rank-8"]
    assert names(compare_runs(runs, sort="forgetting"))[0] == "rank-16"
    assert {run.name: run.color for run in by_start.runs} == {run.name: run.color for run in by_score.runs}


def test_a_run_without_the_score_comes_last(runs, tmp_path):
    broken = make_run(tmp_path / "broken", evaluation=None, status="failed", started="2025-01-01T00:00:00")
    assert names(compare_runs([broken, *runs], sort="accuracy"))[-1] == "broken"


def test_the_best_is_marked_where_all_were_scored_on_the_same_rows(runs, tmp_path):
    found = compare_runs(runs)
    assert found.best == {"accuracy": ("rank-16",), "forgetting": ("rank-16",)}
    elsewhere = make_run(tmp_path / "else", eval_data={"digest": "9" * 64, "rows": 7}, evaluation=scored(0.99))
    assert "accuracy" not in compare_runs([*runs, elsewhere]).best
    assert "accuracy" not in compare_runs([runs[0], make_run(tmp_path / "none", eval_data=None)]).best
    assert "different held-out rows" in Page(compare_runs([*runs, elsewhere]).to_html()).text


def test_a_run_that_broke_off_has_not_forgotten_least(runs, tmp_path):
    broken = make_run(
        tmp_path / "broken", log=[{"step": 0, "general_loss": 3.4}, {"step": 1, "general_loss": 3.4}], status="failed"
    )
    assert compare_runs([*runs, broken]).best["forgetting"] == ("rank-16",)


def test_the_page_shows_all_of_it(runs, tmp_path):
    comparison = compare_runs(runs, price_per_hour=60.0)
    found = Page(comparison.to_html(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == comparison.to_html()
    assert found.fetched() == []
    assert "3 runs compared" in found.text
    assert "Options that differ run rank rank-4 4 rank-16 16 rank-8 8 Scores" in found.text
    assert "★ best" in found.text
    assert "≈ not clearly worse" in found.text
    assert "money" in found.text
    for title in ("Loss on held-out rows", "Training loss, smoothed", "Perplexity of general text"):
        assert title in found.text
    assert "money" not in Page(compare_runs(runs).to_html()).text


def test_names_are_as_short_as_they_can_be_told_apart(tmp_path):
    one, other = make_run(tmp_path / "a" / "run"), make_run(tmp_path / "b" / "run")
    assert names(compare_runs([one, other], sort="name")) == ["a/run", "b/run"]


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="takes two or more, not 1"):
        compare_runs(runs[:1])
    with pytest.raises(ConfigError, match="rank-4' is given twice"):
        compare_runs([runs[0], runs[1], runs[0].parent / "." / "rank-4"])
    with pytest.raises(UnknownNameError, match="no order 'accurcy'; did you mean 'accuracy'"):
        compare_runs(runs, sort="accurcy")
    with pytest.raises(RunError, match="no such folder"):
        compare_runs([runs[0], tmp_path / "none"])


def test_many_runs_fit_on_one_page(tmp_path):
    many = [make_run(tmp_path / f"run-{n:02}", log=records(2_000), config={"rank": n}) for n in range(20)]
    text = compare_runs(many).to_html()
    assert len(text) < 500_000
    patterns = {(a["class"]) for tag, a in Page(text).elements if tag == "path"}
    assert len(patterns) == 20  # eight colours, each plain, dashed and dotted


# -- the command ------------------------------------------------------------------------------------------------------


def test_one_run_is_reported_where_it_is(runs, capsys):
    assert main(["report", str(runs[0])]) == 0
    assert capsys.readouterr().out == f"{runs[0] / 'report.html'}\n"
    assert "lora adapter for examples/base" in (runs[0] / "report.html").read_text()


def test_one_run_is_reported_elsewhere_with_its_price_as_json(runs, tmp_path, capsys):
    assert main(["report", str(runs[0]), "--output", str(tmp_path / "a.html"), "--price-per-hour", "60", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(tmp_path / "a.html")
    assert said["run"]["cost"] == pytest.approx(62.3 / 60)
    assert said["run"]["scores"]["accuracy"] == 0.6
    assert said["run"]["forgetting"]["rise"] == pytest.approx(0.0618, abs=1e-3)
    assert not (runs[0] / "report.html").exists()


def test_several_runs_are_compared(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *map(str, runs), "--sort", "accuracy"]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    assert "3 runs compared" in (tmp_path / "comparison.html").read_text()
    (tmp_path / "comparison.html").unlink()
    assert main(["report", *map(str, runs), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["differences"] == {"rank": [4, 16, 8]}
    assert said["best"]["accuracy"] == ["rank-16"]
    assert not (tmp_path / "comparison.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{run}/adapter"], "is not the folder of a run: there is no such folder"),
        (["{run}", "--sort", "name"], "--sort: is for several runs, and there is one"),
        (["{run}", "--price-per-hour", "-1"], "--price-per-hour: must be 0 or more, not -1.0"),
        (["{run}", "{run}"], "is given twice"),
        (["{run}", "{run}x", "--sort", "score"], "is not the folder of a run"),
    ],
)
def test_a_misuse_is_said_with_exit_code_2(runs, capsys, options, message):
    assert main(["report", *(option.format(run=runs[0]) for option in options)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert not (runs[0] / "report.html").exists()


def test_a_broken_run_is_exit_code_1(runs, capsys):
    (runs[0] / "log.jsonl").write_text("{\n{}\n")
    assert main(["report", str(runs[0])]) == 1
    assert "log.jsonl, line 1: not valid JSON" in capsys.readouterr().err
