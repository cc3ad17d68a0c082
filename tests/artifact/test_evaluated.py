"""Scores beside an adapter: put in, read back, replaced in its folder without its weights being touched."""

import json
import os

import attrs
import pytest

from adapterkit import Adapter, ArtifactError, SelectionError
from adapterkit.artifact.evaluated import forgetting_of, results_of, rounded, with_result
from adapterkit.artifact.writer import replace_manifest
from adapterkit.evaluation import Evaluation
from tests.artifact.adapter_folders import WEIGHTS, contents


def scores_of(adapter, **changes):
    base = Evaluation(scores={"accuracy": 1 / 3}, rows=3)
    values = {"name": "rows.csv", "digest": "d" * 64, "intervals": {"accuracy": (0.123456789, 1.0)}, "base": base}
    return Evaluation(scores={"accuracy": 2 / 3}, rows=3, adapter=adapter.digest, **{**values, **changes})


@pytest.fixture
def bare(adapter):
    return attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, evaluation={}))


def test_scores_go_into_the_manifest_and_the_digest_stays(bare):
    scored = bare.with_evaluation(scores_of(bare))
    assert scored.manifest.evaluation == {
        "results": [
            {
                "name": "rows.csv",
                "digest": "d" * 64,
                "rows": 3,
                "scores": {"accuracy": 0.666667},
                "base": {"accuracy": 0.333333},
                "intervals": {"accuracy": [0.123457, 1.0]},
                "confidence": 0.95,
            }
        ]
    }
    assert scored.digest == bare.digest
    assert bare.manifest.evaluation == {}


def test_results_have_names_and_a_name_has_one_result(bare):
    scored = bare.with_evaluation(scores_of(bare), "b").with_evaluation(scores_of(bare), "a")
    again = scored.with_evaluation(scores_of(bare, base=None), "b")
    assert [one.name for one in results_of(again.manifest.evaluation)] == ["a", "b"]
    assert [bool(one.base) for one in results_of(again.manifest.evaluation)] == [True, False]


def test_what_was_forgotten_stays_beside(bare):
    evaluation = {"forgetting": {"name": "general text", "loss": 2.0, "base": 1.0}}
    held = attrs.evolve(bare, manifest=attrs.evolve(bare.manifest, evaluation=evaluation))
    assert forgetting_of(held.with_evaluation(scores_of(bare)).manifest.evaluation).loss == 2.0


def test_scores_of_another_adapter_are_refused(bare):
    other = attrs.evolve(scores_of(bare), adapter="0" * 64)
    with pytest.raises(SelectionError, match=r"are not those of adapter .*, but those of 000000000000"):
        bare.with_evaluation(other)
    with pytest.raises(SelectionError, match="but the base's"):
        bare.with_evaluation(attrs.evolve(other, adapter=""))
    with pytest.raises(SelectionError, match="say what they are, as in name='Banking77 test'"):
        bare.with_evaluation(scores_of(bare, name=""))


def test_a_folder_gets_scores_and_keeps_its_weights(bare, registry, tmp_path):
    folder = bare.save(tmp_path / "a", registry=registry)
    before = (folder / WEIGHTS).stat()
    scored = bare.with_evaluation(scores_of(bare))
    assert replace_manifest(folder, scored.manifest) is False
    assert Adapter.load(folder, registry=registry).manifest == scored.manifest
    assert contents(folder) == contents(scored.save(tmp_path / "b", registry=registry))
    assert (folder / WEIGHTS).stat().st_ino == before.st_ino, "written once"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_card_that_was_edited_stays_and_a_signature_goes(bare, registry, tmp_path):
    folder = bare.save(tmp_path / "a", registry=registry)
    (folder / "README.md").write_text("# Mine\n")
    (folder / "model.sig").write_text("{}")
    assert replace_manifest(folder, bare.with_evaluation(scores_of(bare)).manifest) is True
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert not (folder / "model.sig").exists()


def test_it_works_where_the_disk_has_no_links(bare, registry, tmp_path, monkeypatch):
    folder = bare.save(tmp_path / "a", registry=registry)

    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    scored = bare.with_evaluation(scores_of(bare))
    replace_manifest(folder, scored.manifest)
    assert Adapter.load(folder, registry=registry).manifest == scored.manifest


def test_a_folder_that_is_none_is_left_as_it_is(stock, bare, tmp_path):
    before = contents(stock)
    with pytest.raises(ArtifactError, match=r"is not replaced: .*adapterkit.json is missing"):
        replace_manifest(stock, bare.manifest)
    assert contents(stock) == before
    with pytest.raises(ArtifactError, match="there is no such folder"):
        replace_manifest(tmp_path / "none", bare.manifest)


def test_only_what_has_the_right_shape_is_read():
    odd = {
        "results": [
            3,
            {"name": 4, "scores": {"a": 1}},
            {"name": "x", "scores": {"a": "high", "b": True, "c": 10**400, "d": float("nan")}},
            {"name": "y", "scores": {"a": 0.5, "b": "x"}, "base": 7, "intervals": {"a": [1]}, "rows": -1, "of": "many"},
        ],
        "forgetting": {"loss": "nan", "base": 1.0},
    }
    (found,) = results_of(odd)
    assert (found.name, found.scores, found.base, found.intervals, found.rows) == ("y", {"a": 0.5}, {}, {}, None)
    assert forgetting_of(odd) is None
    assert [one.get("name") for one in with_result({"results": "none"}, {"name": "n"})["results"]] == ["n"]


def test_numbers_are_the_same_whatever_order_they_were_added_in():
    sums = [sum([0.1, 0.2, 0.3]), sum([0.3, 0.2, 0.1])]
    assert sums[0] != sums[1]
    assert json.dumps(rounded({"a": [sums[0]]})) == json.dumps(rounded({"a": (sums[1],)}))
