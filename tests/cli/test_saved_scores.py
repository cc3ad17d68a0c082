"""`adapterkit evaluate --save`: scores in the adapter's own folder."""

import json

import pytest

from adapterkit import Adapter, Base
from adapterkit.artifact.evaluated import results_of
from adapterkit.cli import main
from tests.support import EXAMPLE_BASE, make_adapter

ROWS = [{"prompt": "Hi", "completion": "no"}, {"prompt": "Well?", "completion": "yes"}]


@pytest.fixture(scope="module")
def adapter():
    return make_adapter(Base(EXAMPLE_BASE), rank=2, scale=0.05)


@pytest.fixture
def folder(adapter, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return adapter.save(tmp_path / "adapter")


def evaluate(folder, *words):
    rows = folder.parent / "rows.jsonl"
    return main(["evaluate", str(EXAMPLE_BASE), str(rows), "--adapter", str(folder), "--max-new-tokens", "2", *words])


def test_scores_are_written_into_the_folder_and_printed(folder, adapter, capsys):
    assert evaluate(folder, "--save") == 0
    said = capsys.readouterr()
    assert said.out.startswith("loss ")
    assert f"scores written to {folder}\n" in said.err
    saved = Adapter.load(folder)
    assert saved == adapter
    (scored,) = results_of(saved.manifest.evaluation)
    assert (scored.name, scored.rows) == ("rows.jsonl", 2)
    assert scored.base["loss"] > 0
    assert "On 2 rows of rows.jsonl" in (folder / "README.md").read_text()


def test_they_have_the_name_that_is_given_beside_those_that_were_there(folder, capsys):
    assert evaluate(folder, "--save") == 0
    assert evaluate(folder, "--save", "--name", "Small talk", "--json") == 0
    json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert [one.name for one in results_of(Adapter.load(folder).manifest.evaluation)] == ["Small talk", "rows.jsonl"]


def test_what_an_edited_card_or_a_signature_means_is_said(folder, capsys):
    (folder / "README.md").write_text("# Mine\n")
    (folder / "model.sig").write_text("{}")
    assert evaluate(folder, "--save") == 0
    said = capsys.readouterr().err
    assert "README.md was edited by hand, and is as it was" in said
    assert "model.sig was of the manifest as it was, and is gone: sign the adapter again" in said
    assert (folder / "README.md").read_text() == "# Mine\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("rows.jsonl", "--adapter", "adapter", "--name", "x"), "--name: says what saved scores are of"),
        (("rows.jsonl", "--adapter", "adapter*0.5", "--save"), "--save: needs --adapter FOLDER"),
        (("rows.jsonl", "--save"), "--save: needs --adapter FOLDER"),
        (("--harness", "copa", "--adapter", "adapter", "--save"), "--save: keeps scores on DATA"),
    ],
)
def test_misuse_is_said_before_the_work(folder, words, why, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("adapterkit.cli.evaluate.open_base", lambda *_, **__: pytest.fail("no work was to be done"))
    assert main(["evaluate", str(EXAMPLE_BASE), *words]) == 2
    assert why in capsys.readouterr().err


def test_a_folder_that_peft_wrote_has_no_place_for_scores(folder, capsys):
    (folder / "adapterkit.json").unlink()
    assert evaluate(folder, "--save") == 2
    assert "has no adapterkit.json to hold scores; save it with adapterkit first" in capsys.readouterr().err
