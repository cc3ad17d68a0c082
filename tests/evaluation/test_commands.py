"""`adapterkit evaluate` and `adapterkit compare`: scores on stdout, talk on stderr, misuse is exit code 2."""

import importlib.util
import json
import re

import pytest

from adapterkit.cli import main
from adapterkit.evaluation import compare
from tests.evaluation.conftest import ROWS
from tests.support import EXAMPLE_BASE


@pytest.fixture(scope="module")
def folder(tmp_path_factory, adapter, other):
    folder = tmp_path_factory.mktemp("commands")
    adapter.save(folder / "one")
    other.save(folder / "two")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def command(*arguments):
        code = main([str(EXAMPLE_BASE) if one == "BASE" else str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


COMPARE = ("compare", "BASE", "rows.jsonl", "--adapter", "one=one", "--adapter", "two=two", "--max-new-tokens", 6)


def test_compare_shows_scores_differences_and_what_python_does(run, comparison):
    code, out, err = run(*COMPARE, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(json.dumps(comparison.to_json(answers=True)))
    code, out, err = run(*COMPARE)
    assert code == 0
    assert out.splitlines()[0].split() == ["base", "one", "two"]
    assert re.search(r"^loss +one - base +[+-]\d+\.\d+ \[.+\] +p = 0\.\d{4} +permutation$", out, re.MULTILINE)
    assert err.endswith("rows are answered in more than one way\n")


def test_compare_writes_the_page(run, folder, comparison):
    code, _, err = run(*COMPARE, "--html", "page.html", "--blind")
    assert code == 0
    assert "answers side by side: page.html" in err
    assert (folder / "page.html").read_text() == comparison.to_html(blind=True)


def test_marks_are_summed_up(run, folder):
    marks = [{"row": row, "best": "one", "blind": True} for row in range(6)]
    found = {"schema": 1, "kind": "adapterkit marks", "comparison": "x", "adapters": ["base", "one"], "marks": marks}
    (folder / "marks.json").write_text(json.dumps(found))
    code, out, err = run("compare", "--marks", "marks.json")
    assert code == 0
    assert out == "one against base  better 6  worse 0  tie 0  p = 0.0312\n"
    assert err == "6 of 6 marks were blind\n"
    said = json.loads(run("compare", "--marks", "marks.json", "--marks", "marks.json", "--json")[1])
    assert said["readers"] == [{"file": "marks.json", "marks": 6, "blind": 6}] * 2
    assert said["pairs"][0]["better"] == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare"], "give BASE, DATA and --adapter NAME=ADAPTER"),
        (["compare", "BASE", "rows.jsonl"], "give BASE, DATA and --adapter NAME=ADAPTER"),
        (["compare", "BASE", "none.jsonl", "--adapter", "a=one"], "no file 'none.jsonl'"),
        (["compare", "BASE", "rows.jsonl", "--adapter", "one"], "'one' is not NAME=ADAPTER"),
        (["compare", "BASE", "rows.jsonl", "--adapter", "a=one", "--adapter", "a=two"], "two adapters are called 'a'"),
        (["compare", "BASE", "rows.jsonl", "--adapter", "a=one", "--html", "no/p.html"], "there is no folder 'no'"),
        (
            ["compare", "BASE", "rows.jsonl", "--adapter", "a=one", "--metrics", "acuracy"],
            "did you mean 'accuracy'",
        ),
        (["compare", "BASE", "--marks", "m.json"], "no BASE, DATA or --adapter beside it"),
        (["evaluate", "BASE"], "give DATA, or --harness TASK"),
        (["evaluate", "BASE", "rows.jsonl", "--harness", "arc_easy"], "one of the two"),
        (["evaluate", "BASE", "rows.jsonl", "--resamples", "-1"], "resamples: must be >= 0"),
    ],
)
def test_a_misuse_is_said(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_marks_that_are_none_are_an_error_not_a_misuse(run, folder):
    (folder / "rows.json").write_text("[]")
    assert run("compare", "--marks", "rows.json")[0] == 1


def test_evaluate_shows_intervals_and_takes_chosen_metrics(run, base, adapter):
    options = ("--adapter", "one", "--metrics", "accuracy", "--metrics", "rouge_l", "--max-new-tokens", 4)
    code, out, _ = run("evaluate", "BASE", "rows.jsonl", *options)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["loss", "perplexity", "accuracy", "rouge_l"]
    said = json.loads(run("evaluate", "BASE", "rows.jsonl", *options, "--json")[1])
    want = base.evaluate(ROWS, adapter=adapter, metrics=("accuracy", "rouge_l"), max_new_tokens=4)
    assert said == json.loads(json.dumps(want.to_json(answers=True)))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_tasks_of_the_harness_are_scored_beside_the_base(run, folder):
    (folder / "tasks").mkdir()
    (folder / "tasks" / "task.yaml").write_text(
        f"task: cards\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{prompt}}'\ndoc_to_target: completion\n"
        "doc_to_choice: ['card arrival', 'no', 'declined, it seems']\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
    )
    code, out, _ = run("evaluate", "BASE", "--harness", "cards", "--harness-folder", "tasks", "--adapter", "one")
    assert code == 0
    assert re.search(r"^cards +acc +[\d.]+ +base [\d.]+$", out, re.MULTILINE)


def test_compare_in_python_is_a_method_of_the_base(base, adapter, comparison):
    found = base.compare(ROWS, {"one": adapter}, max_new_tokens=6)
    assert dict(found["one"]) == dict(comparison["one"])
    assert found.to_json() == compare(base, ROWS, {"one": adapter}, max_new_tokens=6).to_json()
