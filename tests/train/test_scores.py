"""What a run measures goes into its adapter: scores beside the base, and what was forgotten; the digest stays."""

import attrs
import pytest

from adapterkit import Adapter
from adapterkit.artifact.evaluated import forgetting_of, results_of
from adapterkit.train import concluding
from tests.train.test_training import OPTIONS, ROWS, fresh, log_of, tokenizer  # noqa: F401 - a fixture

OF_A_RUN = {**OPTIONS, "epochs": 1}


def test_a_run_with_held_out_rows_saves_and_returns_its_scores(tokenizer, tmp_path):  # noqa: F811
    adapter = fresh(tokenizer).train(ROWS, eval_data=ROWS[:5], report_rows=3, output=tmp_path / "run", **OF_A_RUN)
    assert Adapter.load(tmp_path / "run" / "adapter").manifest == adapter.manifest
    (scored,) = results_of(adapter.manifest.evaluation)
    assert (scored.name, scored.rows, scored.of) == ("held-out rows", 3, 5)
    assert scored.digest == adapter.manifest.training["eval_data"]["digest"]
    again = fresh(tokenizer).evaluate([ROWS[0], ROWS[2], ROWS[4]], adapter=adapter)
    assert scored.scores["loss"] == pytest.approx(again["loss"], rel=1e-5)
    assert scored.base["loss"] == pytest.approx(again.base["loss"], rel=1e-5)
    assert scored.intervals["loss"][0] <= scored.scores["loss"] <= scored.intervals["loss"][1]
    assert "| loss (less is better) |" in (tmp_path / "run" / "adapter" / "README.md").read_text()
    forgotten = forgetting_of(adapter.manifest.evaluation)
    logged = [record["general_loss"] for record in log_of(tmp_path / "run", "general_loss")]
    assert (forgotten.base, forgotten.loss) == pytest.approx((logged[0], logged[-1]), rel=1e-5)


def test_scores_are_no_part_of_what_the_adapter_is(tokenizer, tmp_path):  # noqa: F811
    scored = fresh(tokenizer).train(ROWS, eval_data=ROWS[:5], output=tmp_path, **OF_A_RUN)
    assert scored.digest == fresh(tokenizer).train(ROWS, **OF_A_RUN).digest


def test_the_same_run_gives_the_same_manifest(tokenizer, tmp_path):  # noqa: F811
    for name in "ab":
        fresh(tokenizer).train(ROWS, eval_data=ROWS[:5], output=tmp_path / name, **OF_A_RUN)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "adapter").iterdir()} for name in ("a", "b")
    ]
    assert contents[0] == contents[1]


def test_without_a_folder_the_losses_on_held_out_rows_are_there_and_nothing_more_is_computed(tokenizer, monkeypatch):  # noqa: F811
    monkeypatch.setattr("adapterkit.train.telling.evaluate", lambda *_, **__: pytest.fail("nobody asked for a report"))
    adapter = fresh(tokenizer).train(ROWS, eval_data=ROWS[:5], **OF_A_RUN)
    (scored,) = results_of(adapter.manifest.evaluation)
    assert scored.scores == {"eval_loss": pytest.approx(adapter.manifest.training["eval_loss"], rel=1e-5)}
    assert scored.base["eval_loss"] > scored.scores["eval_loss"]
    assert (scored.rows, scored.of) == (5, 5)


def test_the_files_that_rows_came_from_are_named_without_their_folders(tokenizer, tmp_path):  # noqa: F811
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("prompt,completion\n" + "a question,yes\nanother,no\n" * 6)
    run = {**OF_A_RUN, "max_steps": 1}
    adapter = fresh(tokenizer).train(tmp_path / "train.csv", eval_data=str(tmp_path / "test.csv"), **run)
    assert adapter.manifest.training["data"]["files"] == ["train.csv"]
    assert adapter.manifest.training["eval_data"]["files"] == ["test.csv"]
    assert [one.name for one in results_of(adapter.manifest.evaluation)] == ["test.csv"]
    split = fresh(tokenizer).train(tmp_path / "train.csv", eval_split=4, **run)
    assert [one.name for one in results_of(split.manifest.evaluation)] == ["train.csv (held out)"]
    assert str(tmp_path) not in str(attrs.asdict(adapter.manifest))


def test_scores_that_cannot_be_written_cost_no_adapter(tokenizer, tmp_path, monkeypatch, caplog):  # noqa: F811
    def full(*_):
        raise concluding.ArtifactError("the disk is full")

    monkeypatch.setattr(concluding, "replace_manifest", full)
    adapter = fresh(tokenizer).train(ROWS, eval_data=ROWS[:5], output=tmp_path, **OF_A_RUN)
    assert "the adapter is saved, but without its scores" in caplog.text
    assert "accuracy" not in str(Adapter.load(tmp_path / "adapter").manifest.evaluation)
    assert "accuracy" in str(adapter.manifest.evaluation)
