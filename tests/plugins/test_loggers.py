"""Loggers: they are told what the log has, closed once with how the run ended, and never cost a run."""

import json
import logging
import signal
import sqlite3
import struct

import numpy as np
import pytest
from transformers import AutoTokenizer

from adapterkit import (
    Base,
    ConfigError,
    Job,
    JobsFailedError,
    Logger,
    PluginClashError,
    Registry,
    TrainingError,
    hookimpl,
)
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE

ROWS = [{"prompt": f"question number {n}", "completion": ("yes it is", "no")[n % 2]} for n in range(8)]
STEPS = {"rank": 2, "max_steps": 4, "batch_size": 4, "logging_steps": 1, "report": False, "warmup_ratio": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


class Memory:
    """A logger that remembers what it is told."""

    def __init__(self, name="memory", failing=(), **fields):
        self.told, self.failing, self.name, self.fields = [], failing, name, fields

    @hookimpl
    def adapterkit_loggers(self):
        yield Logger(name=self.name, open=self.open, **self.fields)

    def open(self, run):
        self.note("open", run.name)
        return self

    def log(self, record):
        self.note("log", dict(record))
        record.clear()  # what a logger does to its record is no matter to anybody else

    def close(self, status):
        self.note("close", status)

    def note(self, *told):
        self.told.append(told)
        if told[0] in self.failing:
            raise RuntimeError(f"the logger is ill in {told[0]}")


def base_with(tokenizer, *plugins):
    registry = Registry()
    for plugin in plugins:
        registry.add(plugin)
    return Base(tiny_llama(vocab_size=8192, max_position_embeddings=128), tokenizer=tokenizer, registry=registry)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def logged(memory):
    return [what for said, what in memory.told if said == "log"]


def closed(memory):
    return [what for said, what in memory.told if said == "close"]


# -- what loggers are told --------------------------------------------------------------------------------------------


def test_a_logger_is_told_what_the_log_has_and_how_the_run_ended(tokenizer, tmp_path):
    class AnotherMemory(Memory):
        """One that nobody asks for."""

    memory, unnamed = Memory(), AnotherMemory("unnamed")
    base = base_with(tokenizer, memory, unnamed)
    assert {"memory", "tensorboard", "unnamed"} <= {one.name for one in base.registry.loggers()}
    base.train(ROWS, eval_data=ROWS[:2], output=tmp_path, report_to=("memory", "memory"), **STEPS)
    assert memory.told[0] == ("open", "")
    assert logged(memory) == log_of(tmp_path)
    assert any("eval_loss" in record for record in logged(memory))
    assert closed(memory) == ["finished"]
    assert unnamed.told == []


def test_a_run_that_stops_early_or_fails_closes_its_logger_once(tokenizer):
    memory = Memory()
    base = base_with(tokenizer, memory)
    early = {"eval_data": ROWS[:2], "eval_steps": 1, "early_stopping_patience": 1, "early_stopping_threshold": 50.0}
    base.train(ROWS, report_to=("memory",), **{**STEPS, "max_steps": 9}, **early)
    assert closed(memory) == ["stopped early"]
    with pytest.raises(TrainingError):
        base.train(ROWS, report_to=("memory",), **{**STEPS, "max_steps": 20}, learning_rate=1e18)
    assert closed(memory) == ["stopped early", "failed"]


def test_ctrl_c_closes_a_logger(tokenizer):
    memory = Memory()

    class Pressing:
        @hookimpl
        def adapterkit_train_logged(self, record):
            if record["step"] == 2:
                signal.raise_signal(signal.SIGINT)

    base = base_with(tokenizer, memory, Pressing())
    with pytest.raises(KeyboardInterrupt):
        base.train(ROWS, report_to=("memory",), **STEPS)
    assert closed(memory) == ["interrupted"]
    assert logged(memory)[-1]["step"] == 2


def test_jobs_that_share_a_pass_have_a_run_each(tokenizer):
    memory = Memory()
    base = base_with(tokenizer, memory)
    jobs = [
        Job(ROWS, name="good", report_to=("memory",), **STEPS),
        Job(ROWS, name="bad", report_to=("memory",), **{**STEPS, "max_steps": 20}, learning_rate=1e18),
    ]
    with pytest.raises(JobsFailedError):
        base.train_many(jobs)
    assert sorted(what for said, what in memory.told if said == "open") == ["bad", "good"]
    assert sorted(closed(memory)) == ["failed", "finished"]


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_logger_that_fails_is_said_once_and_the_run_goes_on(tokenizer, where, caplog, tmp_path):
    ill = Memory(failing=(where,))
    with caplog.at_level(logging.ERROR, logger="adapterkit"):
        base_with(tokenizer, ill).train(ROWS, output=tmp_path, report_to=("memory",), **STEPS)
    assert caplog.text.count("logger 'memory' failed and is left out from here on; the run goes on") == 1
    assert f"the logger is ill in {where}" in caplog.text
    assert [said for said, _ in ill.told].count(where) == 1
    assert ill.told[-1][0] == where, "nothing after it failed"
    assert log_of(tmp_path)[-1]["step"] == 4


# -- what is refused before anything is trained -----------------------------------------------------------------------


def test_a_logger_that_nobody_provides_or_that_lacks_its_library_is_refused_first(tokenizer, tmp_path):
    base = base_with(tokenizer, Memory(requires="no_such_library"))
    with pytest.raises(ConfigError) as caught:
        base.train(ROWS, output=tmp_path / "run", report_to=("tensorbord", "memory"), **STEPS)
    unknown, missing = caught.value.problems
    assert "no logger 'tensorbord'; did you mean 'tensorboard'?" in unknown
    assert missing == "report_to: 'memory' needs no_such_library: try `pip install no_such_library`"
    assert not (tmp_path / "run").exists()


def test_a_bundled_logger_without_its_library_says_which_extra_brings_it(tokenizer, monkeypatch):
    monkeypatch.setattr("adapterkit.train.journal.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        base_with(tokenizer).train(ROWS, report_to=("tensorboard", "wandb", "trackio"), **STEPS)
    cures = [problem.rpartition(": ")[2] for problem in caught.value.problems]
    assert cures == [f"try `pip install 'adapterkit[{name}]'`" for name in ("tensorboard", "wandb", "trackio")]


def test_two_plugins_with_one_logger_are_named(tokenizer):
    class Rival(Memory):
        """Another plugin."""

    base = base_with(tokenizer, Memory(), Rival())
    with pytest.raises(PluginClashError, match=r"logger 'memory' is provided by Memory .* and by Rival"):
        base.train(ROWS, report_to=("memory",), **STEPS)


# -- the bundled ones -------------------------------------------------------------------------------------------------


def events(folder):
    """Every number that TensorBoard has, as ``(name, step, value)``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder)).Reload()
    return [(name, one.step, one.value) for name in accumulator.Tags()["scalars"] for one in accumulator.Scalars(name)]


def numbers(folder):
    """The same of ``log.jsonl``, as TensorBoard keeps numbers: in single precision."""
    return [
        (name, record["step"], float(np.float32(value)))
        for record in log_of(folder)
        for name, value in record.items()
        if name != "step"
    ]


def test_tensorboard_has_the_numbers_of_the_log(tokenizer, tmp_path):
    pytest.importorskip("tensorboard")
    base_with(tokenizer).train(ROWS, eval_data=ROWS[:2], output=tmp_path, report_to=("tensorboard",), **STEPS)
    found = events(tmp_path / "tensorboard")
    assert len(found) > 4 * 4
    assert sorted(found) == sorted(numbers(tmp_path))


def test_tensorboard_shows_no_step_twice_after_a_run_is_resumed_or_begun_anew(tokenizer, tmp_path):
    pytest.importorskip("tensorboard")

    class Dying:
        @hookimpl
        def adapterkit_train_logged(self, record):
            if record["step"] == 8:
                raise SystemExit("the power fails")

    long = {**STEPS, "max_steps": 12, "save_steps": 3}
    with pytest.raises(SystemExit):
        base_with(tokenizer, Dying()).train(ROWS, output=tmp_path, report_to=("tensorboard",), **long)
    before = log_of(tmp_path)[-1]["step"]
    kept = max(int(one.name.removeprefix("step-")) for one in (tmp_path / "checkpoints").iterdir())
    assert kept < before < 12, "some of what was logged is logged again"
    base_with(tokenizer).train(ROWS, output=tmp_path, report_to=("tensorboard",), resume=True, **long)
    assert sorted(events(tmp_path / "tensorboard")) == sorted(numbers(tmp_path))
    base_with(tokenizer).train(ROWS, output=tmp_path, report_to=("tensorboard",), **STEPS)
    assert sorted(events(tmp_path / "tensorboard")) == sorted(numbers(tmp_path))


def test_tensorboard_has_a_folder_of_its_own_where_there_is_no_output(tokenizer, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    base_with(tokenizer).train(ROWS, report_to=("tensorboard",), **STEPS)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_lora")
    assert max(step for _, step, _ in events(folder)) == 4


def test_wandb_keeps_a_run_offline(tokenizer, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    jobs = [Job(ROWS, name=name, report_to=("wandb",), **STEPS) for name in ("one", "two")]
    base_with(tokenizer).train_many(jobs, output=tmp_path)
    wandb.teardown()  # its own process has now written everything
    for name in ("one", "two"):
        (found,) = (tmp_path / name / "wandb").glob("offline-run-*/run-*.wandb")
        kept = wandb_records(found)
        assert [step for step, _ in kept] == sorted({record["step"] for record in log_of(tmp_path / name)})
        losses = [values["loss"] for _, values in kept if "loss" in values]
        assert losses == [record["loss"] for record in log_of(tmp_path / name) if "loss" in record]


def wandb_records(path):
    """Steps and values in a run's file: protocol buffers in blocks, as LevelDB writes its log, after seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, record, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            parsed = wandb_internal_pb2.Record.FromString(record)
            record = b""
            if parsed.HasField("history"):
                items = parsed.history.item
                values = {one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in items}
                found.append((values["_step"], values))
    return found


def test_trackio_keeps_a_run_on_this_machine(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_PROJECT", "tested")
    pytest.importorskip("trackio")
    jobs = [Job(ROWS, name=name, report_to=("trackio",), **STEPS) for name in ("one", "two")]
    base_with(tokenizer).train_many(jobs, output=tmp_path)
    assert capsys.readouterr().out == "", "data alone goes to standard output"
    with sqlite3.connect(tmp_path / "trackio" / "tested.db") as kept:
        rows = kept.execute("select run_name, step, metrics from metrics order by id").fetchall()
    for name in ("one", "two"):
        found = [(step, json.loads(values)) for run, step, values in rows if run == name]
        told = [(one.pop("step"), one) for one in log_of(tmp_path / name)]
        assert found == told
