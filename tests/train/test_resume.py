"""A run that was cut off goes on as if it had not been."""

import copy
import json
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from adapterkit import ConfigError, TrainingError
from adapterkit.train import checkpoints
from adapterkit.train.record import claimed
from tests.support import ROOT
from tests.train.test_training import OPTIONS, ROWS, fresh, log_of, tokenizer  # noqa: F401

STEADY = {**OPTIONS, "dropout": 0.2, "epochs": 4, "save_steps": 2}


class CutOffError(Exception):
    pass


@pytest.fixture
def cut(monkeypatch):
    """Ends the run after some step, as if the machine had been switched off."""

    def after(step):
        from adapterkit.train.training import Training

        update = Training.update

        def updating(self):
            if self.step == step:
                raise CutOffError
            update(self)

        monkeypatch.setattr(Training, "update", updating)

    yield after
    monkeypatch.undo()


def cut_off(cut, monkeypatch, tokenizer, folder, step, **options):  # noqa: F811
    cut(step)
    with pytest.raises(CutOffError):
        fresh(tokenizer).train(ROWS, output=folder, **{**STEADY, **options})
    monkeypatch.undo()


@pytest.mark.parametrize("method", ["lora", "prompt_tuning", "full"])
def test_a_resumed_run_is_the_same_to_the_bit(tokenizer, tmp_path, cut, monkeypatch, method):  # noqa: F811
    options = {name: value for name, value in STEADY.items() if method == "lora" or name not in ("rank", "dropout")}
    whole = fresh(tokenizer).train(ROWS, method=method, output=tmp_path / "whole", **options)
    cut(7)
    with pytest.raises(CutOffError):
        fresh(tokenizer).train(ROWS, method=method, output=tmp_path / "cut", **options)
    monkeypatch.undo()
    assert [path.name for path in sorted((tmp_path / "cut" / "checkpoints").iterdir())] == [
        "step-00000004",
        "step-00000006",
    ]
    resumed = fresh(tokenizer).train(ROWS, method=method, output=tmp_path / "cut", resume=True, **options)
    assert resumed.digest == whole.digest
    assert [record["loss"] for record in log_of(tmp_path / "cut")] == [
        record["loss"] for record in log_of(tmp_path / "whole")
    ]
    assert not (tmp_path / "cut" / "checkpoints").exists(), "they are for runs that have not ended"


def killed(moments, seed):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    command = [sys.executable, "-W", "ignore", "-m", "tests.train.killing", str(moments), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def check_killed(outcomes):
    assert all(one["same"] and not one["log"] for one in outcomes), outcomes
    assert all(one["left"] == ["adapter", "log.jsonl", "run.json"] for one in outcomes), outcomes
    assert sum(one["killed"] for one in outcomes) >= len(outcomes) // 2, outcomes


def test_a_killed_run_is_resumed_to_the_bit():
    check_killed(killed(2, seed=1))


@pytest.mark.slow
def test_runs_killed_at_twenty_random_moments_are_resumed_to_the_bit():
    outcomes = killed(20, seed=0)
    check_killed(outcomes)
    assert len({one["from"] for one in outcomes}) > 4, "the moments are spread over the run"


def test_what_was_best_and_how_long_was_waited_survive_a_cut(tokenizer, tmp_path, cut, monkeypatch):  # noqa: F811
    watched = {"eval_data": ROWS[:6], "eval_steps": 1, "early_stopping_patience": 3, "learning_rate": 0.2, "epochs": 10}
    whole = fresh(tokenizer).train(ROWS, output=tmp_path / "whole", **{**STEADY, **watched})
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["status"] == "stopped early"
    assert record["best_step"] < record["last_step"]
    cut_off(cut, monkeypatch, tokenizer, tmp_path / "cut", record["last_step"] - 1, **watched)
    resumed = fresh(tokenizer).train(ROWS, output=tmp_path / "cut", resume=True, **{**STEADY, **watched})
    assert resumed.digest == whole.digest
    again = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert (again["best_step"], again["last_step"]) == (record["best_step"], record["last_step"])


def test_another_run_is_not_gone_on_with(tokenizer, tmp_path, cut, monkeypatch):  # noqa: F811
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5)
    with pytest.raises(ConfigError) as caught:
        fresh(tokenizer).train(ROWS[1:], output=tmp_path, resume=True, **{**STEADY, "rank": 2, "seed": 1})
    said = str(caught.value)
    assert "config.rank: was 4, and is 2" in said
    assert "options.seed: was 42, and is 1" in said
    assert "data.digest" in said
    assert "checkpoints/step-00000004" in said
    fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **{**STEADY, "logging_steps": 3})


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(tokenizer, tmp_path, cut, monkeypatch):  # noqa: F811
    whole = fresh(tokenizer).train(ROWS, **STEADY)
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5)
    last = tmp_path / "checkpoints" / "step-00000004"
    content = bytearray((last / "layers.safetensors").read_bytes())
    content[-1] ^= 1
    (last / "layers.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match=r"step-00000004' is damaged.*remove that folder"):
        fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **STEADY)
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    assert fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **STEADY).digest == whole.digest


def test_a_disk_that_is_full_loses_nothing(tokenizer, tmp_path, monkeypatch, caplog):  # noqa: F811
    saved, save = [], checkpoints.save_file

    def filling(tensors, path):
        saved.append(path)
        if len(saved) > 2:  # the first checkpoint has its two files
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", filling)
    found = []
    write = checkpoints.Checkpoints.save

    def saving(self, training):
        write(self, training)
        found.append(sorted(path.name for path in self.folder.iterdir()))

    monkeypatch.setattr(checkpoints.Checkpoints, "save", saving)
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        adapter = fresh(tokenizer).train(ROWS, output=tmp_path, **STEADY)
    assert "no checkpoint of step 4 could be written" in caplog.text
    assert "No space left on device" in caplog.text
    assert "earlier ones are as they were: step-00000002" in caplog.text
    assert found == [["step-00000002"]] * len(found)
    assert adapter.digest == fresh(tokenizer).train(ROWS, **STEADY).digest


def test_a_full_disk_is_known_by_what_safetensors_says_of_it(tokenizer, tmp_path, monkeypatch, caplog):  # noqa: F811
    resource = pytest.importorskip("resource")
    save, (soft, hard) = checkpoints.save_file, resource.getrlimit(resource.RLIMIT_FSIZE)

    def without_room(tensors, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            save(tensors, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(checkpoints, "save_file", without_room)
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        adapter = fresh(tokenizer).train(ROWS, output=tmp_path, **STEADY)
    assert "no checkpoint of step 2 could be written" in caplog.text
    assert adapter.digest == fresh(tokenizer).train(ROWS, **STEADY).digest


def test_ctrl_c_finishes_the_step_and_keeps_it(tokenizer, tmp_path):  # noqa: F811
    whole = fresh(tokenizer).train(ROWS, **STEADY)
    base = fresh(tokenizer)
    calls = []

    def press(*_):
        calls.append(1)
        if len(calls) == 11:  # after the rows have been tried and general text measured
            signal.raise_signal(signal.SIGINT)

    base.model.model.layers[0].register_forward_pre_hook(press)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after step \d+ of 12; go on with resume=True"):
        base.train(ROWS, output=tmp_path, **{**STEADY, "save_steps": 500})
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (kept,) = (tmp_path / "checkpoints").iterdir()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert kept.name == f"step-{record['last_step']:08d}"
    assert (
        fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **{**STEADY, "save_steps": 500}).digest
        == whole.digest
    )


def test_another_thread_leaves_ctrl_c_alone(tokenizer):  # noqa: F811
    seen = []
    base = fresh(tokenizer)
    base.model.register_forward_pre_hook(lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
    worker = threading.Thread(target=lambda: base.train(ROWS, **{**OPTIONS, "max_steps": 1}))
    worker.start()
    worker.join()
    assert set(seen) == {signal.default_int_handler}


def test_a_run_that_has_ended_is_not_run_again(tokenizer, tmp_path):  # noqa: F811
    first = fresh(tokenizer).train(ROWS, output=tmp_path, **STEADY)
    base = fresh(tokenizer)
    before = (tmp_path / "run.json").read_bytes()
    assert base.train(ROWS, output=tmp_path, resume=True, **STEADY) == first
    assert base.resident == (first,)
    assert (tmp_path / "run.json").read_bytes() == before
    other = fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **{**STEADY, "seed": 7})
    assert other != first, "with other options it is another run"


def test_resuming_needs_a_folder(tokenizer):  # noqa: F811
    with pytest.raises(ConfigError, match="resume: needs output"):
        fresh(tokenizer).train(ROWS, resume=True, **OPTIONS)


def ask_to_stop(monkeypatch, step):
    """Presses Ctrl-C while the rows that are held out are looked at after some step."""
    from adapterkit.train.training import Training

    evaluate = Training.evaluate

    def evaluating(self):
        evaluate(self)
        if self.step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "evaluate", evaluating)


def count_steps(monkeypatch):
    from adapterkit.train.training import Training

    taken, update = [], Training.update
    monkeypatch.setattr(Training, "update", lambda self: taken.append(self.step) or update(self))
    return taken


def test_ctrl_c_after_the_last_step_loses_no_step(tokenizer, tmp_path, monkeypatch):  # noqa: F811
    options = {**STEADY, "max_steps": 4, "save_steps": 500}
    whole = fresh(tokenizer).train(ROWS, **options)
    ask_to_stop(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt, match="go on with resume=True"):
        fresh(tokenizer).train(ROWS, output=tmp_path, **options)
    monkeypatch.undo()
    taken = count_steps(monkeypatch)
    resumed = fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **options)
    assert (resumed.digest, taken) == (whole.digest, [])


def test_a_run_that_was_to_stop_early_takes_no_step_after_it_was_cut_off(tokenizer, tmp_path, monkeypatch):  # noqa: F811
    options = {**STEADY, "max_forgetting": 1e-9, "eval_steps": 1, "save_steps": 1}
    whole = fresh(tokenizer).train(ROWS, output=tmp_path / "whole", **options)
    stopped = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert stopped["last_step"] < stopped["steps"]

    def killed(*_):
        raise CutOffError

    monkeypatch.setattr("adapterkit.train.run.conclude", killed)
    with pytest.raises(CutOffError):
        fresh(tokenizer).train(ROWS, output=tmp_path / "cut", **options)
    monkeypatch.undo()
    taken = count_steps(monkeypatch)
    resumed = fresh(tokenizer).train(ROWS, output=tmp_path / "cut", resume=True, **options)
    assert (resumed.digest, taken) == (whole.digest, [])
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["status"] == "stopped early"


def test_a_run_that_is_killed_before_its_record_says_that_it_ended_keeps_its_checkpoints(
    tokenizer,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    from adapterkit.train.record import RunRecord

    end = RunRecord.end

    def ending(self, status, *rest, **values):
        if status == "finished":
            raise CutOffError
        end(self, status, *rest, **values)

    monkeypatch.setattr(RunRecord, "end", ending)
    with pytest.raises(CutOffError):
        fresh(tokenizer).train(ROWS, output=tmp_path, **STEADY)
    monkeypatch.undo()
    taken = count_steps(monkeypatch)
    fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **STEADY)
    assert len(taken) <= STEADY["save_steps"]


@pytest.mark.parametrize("name", ["step-abc", "step-7", "notes"])
def test_what_somebody_else_has_put_beside_the_checkpoints_stays(tokenizer, tmp_path, name):  # noqa: F811
    theirs = tmp_path / "checkpoints" / name / "precious.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    fresh(tokenizer).train(ROWS, output=tmp_path, **{**STEADY, "max_steps": 3})
    assert theirs.read_text() == "mine"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"replay_ratio": 0.2}, {"replay_ratio": 0.6}, "learned.in_an_epoch: was"),
        (
            {"general_data": [{"text": "Of ships."}]},
            {"general_data": [{"text": "Of seas."}]},
            "learned.general_data: was",
        ),
    ],
)
def test_other_shares_and_other_general_text_are_another_run(
    tokenizer,  # noqa: F811
    tmp_path,
    cut,
    monkeypatch,
    then,
    now,
    said,
):
    options = {"max_steps": 6, "replay": [{"prompt": f"r {n}", "completion": "s"} for n in range(9)]}
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5, **options, **then)
    with pytest.raises(ConfigError, match=said):
        fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **{**STEADY, **options, **now})


def test_other_words_around_the_same_rows_are_another_run(tokenizer, tmp_path, cut, monkeypatch):  # noqa: F811
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5)
    base = fresh(copy.deepcopy(tokenizer))
    base.tokenizer.chat_template = base.tokenizer.chat_template.replace("<|im_start|>", "<|im_start|> ")
    with pytest.raises(ConfigError, match=r"learned\.examples: was"):
        base.train(ROWS, output=tmp_path, resume=True, **STEADY)


@pytest.mark.parametrize("state", ["[1]", "[" * 100_000, '{"schema": 1}', '{"schema": 1, "files": {"../../x": "0"}}'])
def test_a_state_that_is_none_is_named(tokenizer, tmp_path, cut, monkeypatch, state):  # noqa: F811
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5)
    (tmp_path / "checkpoints" / "step-00000004" / "state.json").write_text(state)
    with pytest.raises(TrainingError, match=r"step-00000004' is damaged"):
        fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **STEADY)


def test_a_log_that_is_gone_is_named(tokenizer, tmp_path, cut, monkeypatch):  # noqa: F811
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5)
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(TrainingError, match="has 0 records"):
        fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **STEADY)


def test_a_run_that_was_cut_off_is_not_lost_to_whoever_forgets_to_resume(tokenizer, tmp_path, cut, monkeypatch):  # noqa: F811
    cut_off(cut, monkeypatch, tokenizer, tmp_path, 5)
    log = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"cut off there after step 4; go on with it by resume=True"):
        fresh(tokenizer).train(ROWS, output=tmp_path, **STEADY)
    assert (tmp_path / "checkpoints" / "step-00000004" / "layers.safetensors").is_file()
    assert (tmp_path / "log.jsonl").read_bytes() == log
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"
    fresh(tokenizer).train(ROWS, output=tmp_path, resume=True, **STEADY)


def test_a_folder_that_another_run_writes_into_is_left_to_it(tmp_path, tokenizer):  # noqa: F811
    with claimed(tmp_path), pytest.raises(TrainingError, match="another run is writing into"):
        fresh(tokenizer).train(ROWS, output=tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir()), "nothing was written"
    assert fresh(tokenizer).train(ROWS, output=tmp_path, **OPTIONS)
