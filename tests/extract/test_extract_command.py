"""`adapterkit extract`."""

import json

import pytest

from adapterkit import Adapter
from adapterkit.cli import main
from adapterkit.testing import tiny_llama


def test_it_writes_an_adapter_prints_its_folder_and_says_what_is_cut_off(saved, tuned, tmp_path, capsys):
    base, folder = saved(tiny_llama(), "base"), saved(tuned(tiny_llama(), "proj.weight", rank=20), "tuned")
    capsys.readouterr()  # what saving has shown
    assert main(["extract", str(base), str(folder), str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'out'}\n"
    lineage = Adapter.load(tmp_path / "out").manifest.lineage
    assert lineage["rank"] == 16
    worst = sorted(lineage["sites"], key=lambda name: -lineage["sites"][name]["error"])[:3]
    most = ", ".join(f"{name} {lineage['sites'][name]['error']:.1%}" for name in worst)
    assert said.err == (
        f"14 layers of rank 16, the default; {lineage['error']:.1%} of the difference is cut off, most at {most}: a higher "
        "--rank keeps more\n"
    )


def test_it_says_that_nothing_is_cut_off(pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    assert main(["extract", base, tuned, str(tmp_path / "out"), "--rank", "3"]) == 0
    assert capsys.readouterr().err == "4 layers of rank 3; nothing of the difference is cut off\n"


def test_an_error_is_lowered_and_what_is_left_out_is_named(pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    words = ["--max-error", "0.6", "--target-modules", "q_proj", "--ignore-rest"]
    assert main(["extract", base, tuned, str(tmp_path / "out"), *words]) == 0
    cut, left = capsys.readouterr().err.splitlines()
    assert cut.startswith("2 layers of rank ")
    assert cut.endswith(": a lower --max-error keeps more")
    assert left == "left out: model.layers.0.mlp.down_proj.weight, model.layers.1.mlp.down_proj.weight"


def test_json_has_the_lineage(pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    words = ["--max-error", "0.01", "--target-modules", "q_proj", "--ignore-rest", "--json"]
    assert main(["extract", base, tuned, str(tmp_path / "out"), *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["max_error"], {one["rank"] for one in said["sites"].values()}) == (0.01, {3})
    assert len(said["lost"]) == 2
    assert said["digest"] == Adapter.load(tmp_path / "out").digest


def test_misuse_exits_2_and_leaves_nothing(pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    assert main(["extract", base, tuned, str(tmp_path / "out"), "--target-modules", "q_proj"]) == 2
    assert (
        "name embeddings and heads among --target-modules, or leave the rest out: --ignore-rest"
        in capsys.readouterr().err
    )
    assert main(["extract", base, tuned, str(tmp_path / "out"), "--rank", "0", "--max-error", "2"]) == 2
    said = capsys.readouterr().err
    assert "\n  - --rank: give a rank or --max-error, not both\n" in said
    assert "\n  - --max-error: must be between 1e-06, below which float32 rounds, and 1, not 2.0" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("base", "is the input"),
        ("tuned", "is the input"),
        ("tuned/adapter", "lies in the input"),
        (".", "holds the input"),
        ("notes", "holds something that is no adapter"),
    ],
)
def test_no_input_and_nothing_else_is_written_over(output, why, pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    assert main(["extract", base, tuned, str(tmp_path / output)]) == 2
    said = capsys.readouterr().err
    assert "OUTPUT does not fit" in said
    assert why in said
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_an_adapter_that_is_read_is_not_replaced_and_another_one_is(pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["extract", base, tuned, str(first), "--rank", "3"]) == 0
    assert main(["extract", base, str(first), str(first), "--rank", "1"]) == 2
    assert "is the input" in capsys.readouterr().err
    for rank in ("2", "1"):
        assert main(["extract", base, str(first), str(second), "--rank", rank]) == 0
    assert {one["rank"] for one in Adapter.load(second).manifest.lineage["sites"].values()} == {1}
    assert Adapter.load(first).manifest.lineage["rank"] == 3
