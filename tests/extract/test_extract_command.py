"""`adapterkit extract`."""

import json

from adapterkit import Adapter
from adapterkit.cli import main


def test_it_writes_an_adapter_and_prints_each_layer(pair, tmp_path, capsys):
    base, tuned = map(str, pair)
    assert main(["extract", base, tuned, str(tmp_path / "out"), "--rank", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "rank", "error"]
    assert lines[1].split()[:2] == ["model.layers.0.self_attn.q_proj", "2"]
    assert lines[-1].startswith("all layers")
    assert len(lines) == 6
    assert Adapter.load(tmp_path / "out").manifest.lineage["rank"] == 2


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
    assert "or --ignore-rest" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert main(["extract", base, tuned, str(tmp_path / "full")]) == 2
    assert "OUTPUT does not fit" in capsys.readouterr().err
