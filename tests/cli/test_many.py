"""``train-many`` and ``sweep`` on the command line."""

import json

import pytest

from adapterkit import Adapter
from adapterkit.cli import main
from tests.support import EXAMPLE_BASE

ROWS = "".join(
    json.dumps({"prompt": f"number {n}", "completion": "odd" if n % 2 else "even"}) + "\n" for n in range(12)
)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(ROWS, encoding="utf-8")
    return tmp_path / "data" / "rows.jsonl"


def test_jobs_of_a_list_are_trained_together(data, tmp_path, capsys):
    jobs = data.parent / "jobs.yml"
    jobs.write_text(
        "- {data: rows.jsonl, name: a, rank: 2, max_steps: 2, learning_rate: 3e-3}\n"
        "- {data: {rows.jsonl: 0.5}, method: prompt_tuning, tokens: 3, max_steps: 1}\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    assert main(["train-many", str(EXAMPLE_BASE), str(jobs), "--output", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "a" / "adapter"), str(out / "1" / "adapter")]
    assert [Adapter.load(out / name / "adapter").method for name in ("a", "1")] == ["lora", "prompt_tuning"]
    assert main(["train-many", str(EXAMPLE_BASE), str(jobs), "--output", str(out), "--resume", "--json"]) == 0
    assert [one["steps"] for one in json.loads(capsys.readouterr().out)] == [2, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{a: b}", "must be a list of jobs"),
        ("", "must be a list of jobs"),
        ("- rows.jsonl", "job 1: must have `data`"),
        ("- {rank: 2}", "job 1: must have `data`"),
        ("- [", "neither YAML nor JSON"),
        ("- {data: nothing.jsonl}", "nothing.jsonl"),
        ("- {data: rows.jsonl, ranc: 2}", "did you mean 'rank'"),
        ("- {data: rows.jsonl}\n- {data: rows.jsonl, name: b, rnk: 2}", "job 'b': options of train do not fit"),
        ("- !!python/object/apply:os.system ['true']", "line 1: tags such as"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(data, tmp_path, capsys, text, said):
    jobs = data.parent / "jobs.yml"
    jobs.write_text(text, encoding="utf-8")
    assert main(["train-many", str(EXAMPLE_BASE), str(jobs), "--output", str(tmp_path / "out")]) in (1, 2)
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_a_sweep_prints_its_table_or_json(data, capsys):
    command = ["sweep", str(EXAMPLE_BASE), str(data), "--grid", "learning_rate=1e-6,1e-2", "--grid", "rank=2"]
    options = ["--eval-split", "4", "--max-steps", "3", "--min-steps", "1"]
    assert main([*command, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == {"learning_rate": 1e-2, "rank": 2}
    assert [trial["steps"] for trial in found["trials"]] == [3, 2]
    assert main([*command, *options, "--method", "lora"]) == 0
    assert "given up" in capsys.readouterr().out


def test_a_grid_that_is_no_grid_is_misuse(data, capsys):
    assert main(["sweep", str(EXAMPLE_BASE), str(data), "--grid", "rank", "--eval-split", "4"]) == 2
    assert "write it as option=value,value" in capsys.readouterr().err
