"""Two processes that share a run learn what one learns, whether the base is whole in each or divided; and both end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapterkit import Base, ConfigError, TrainingError
from adapterkit.cli.processes import COMMAND
from adapterkit.train.processes import Processes
from tests.support import EXAMPLE_BASE, ROOT
from tests.train.test_training import OPTIONS, ROWS, fresh, tokenizer  # noqa: F401
from tests.train.together import difference

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def tried(folder, *scenarios):
    """What the processes of each scenario say, by its place; and the folder that they worked in."""
    listed = json.dumps([[*one, {}, {}][:4] for one in scenarios])
    command = [sys.executable, "-W", "ignore", "-m", "tests.train.together", str(folder), listed]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return Path(found["root"]), found["said"]


def log_of(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in one.items() if name != "tokens_per_second"} for one in records]


def check_equal(root, alone, said, family, name):
    """Gradients of the first step, the adapter, and all that was logged are those of one process; one of the two has written."""
    expected = log_of(root / f"{family}-alone")
    assert [sorted(one) for one in log_of(root / name)] == [sorted(one) for one in expected]
    for one, other in zip(log_of(root / name), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    for rank in (0, 1):
        gradients, tensors = difference(root, f"{family}-alone-0.pt", f"{name}-{rank}.pt")
        assert gradients < 1e-5
        assert tensors < 1e-5
    first, second = said
    assert first["digest"] == second["digest"]
    assert first["heard"] == alone["heard"]
    assert (second["heard"], second["writes"]) == ([], 0)
    assert sorted(path.name for path in (root / name).iterdir()) == ["adapter", "log.jsonl", "run.json"]
    assert first["writes"] == alone["writes"] > 5


def check_divided(said):
    """The base was given up, and is as it was when it is next needed."""
    assert not any(one["resident"] or one["loaded"] for one in said)
    for one in said:
        held, whole = one["held"]
        assert whole > 15
        assert held == 0, "no whole weight of a block is left in memory"
    assert all(one["answer"] == one["alone"] for one in said)


def test_two_processes_learn_what_one_does(tmp_path):
    root, (alone, whole, divided, recomputed, killed, resumed, steady) = tried(
        tmp_path,
        ("equal", 1, {"family": "llama"}),
        ("equal", 2, {"family": "llama"}),
        ("equal", 2, {"family": "llama", "fsdp": True}),
        ("equal", 2, {"family": "llama", "fsdp": True, "checkpointing": True}),
        ("killed", 2),
        ("resumed", 2),
        ("dropping", 2),
    )
    check_equal(root, alone[0], whole, "llama", "llama-ddp-False")
    check_equal(root, alone[0], divided, "llama", "llama-fsdp-False")
    check_equal(root, alone[0], recomputed, "llama", "llama-fsdp-True")
    check_divided(divided)
    check_divided(recomputed)
    assert all(one["resident"] for one in whole)
    record = json.loads((root / "llama-fsdp-False" / "run.json").read_text())
    assert (record["processes"], record["options"]["fsdp"], record["status"]) == (2, True, "finished")

    assert [one["killed"] for one in killed] == [True, True]
    assert {one["digest"] for one in resumed} == {steady[0]["digest"]}, (
        "each process goes on with its own random numbers"
    )
    assert {one["again"] for one in resumed} == {steady[0]["digest"]}
    assert log_of(root / "cut") == log_of(root / "whole")


def test_an_error_in_one_process_ends_all_of_them(tmp_path):
    root, (bad, other, failing, disk, diverging, interrupted, refused, not_summed) = tried(
        tmp_path,
        ("bad_rows", 2),
        ("other_rows", 2),
        ("failing", 2),
        ("full_disk", 2),
        ("diverging", 2),
        ("interrupted", 2),
        ("refusals", 2),
        ("not_summed", 2),
    )
    everything = (bad, other, failing, disk, diverging, interrupted, refused, not_summed)
    assert all(one["seconds"] < 60 and not one["killed"] for both in everything for one in both)

    assert bad[1]["error"] == "DataError"
    assert bad[0]["text"].startswith("process 1 of 2: rows[0]: no data format fits")
    assert not (root / "bad").exists()

    assert all("processes 0 and 1 do not do the same: data is" in one["text"] for one in other)

    assert failing[0]["text"] == "process 1 of 2: out of memory, say"
    assert failing[1]["text"] == "out of memory, say"
    record = json.loads((root / "failing-False" / "run.json").read_text())
    assert (record["status"], record["last_step"]) == ("failed", 2)
    assert record["reason"] == "process 1 of 2: out of memory, say"

    assert disk[1]["text"] == "process 0 of 2: [Errno 28] No space left on device"

    assert diverging[0]["text"] == diverging[1]["text"]
    assert diverging[0]["text"].startswith("step 2: the loss is nan")

    assert {one["text"] for one in interrupted} == {"interrupted after step 3 of 24; go on with resume=True"}
    assert [path.name for path in (root / "interrupted" / "checkpoints").iterdir()] == ["step-00000003"]

    for one in refused:
        assert "fsdp: a model object would be left in pieces" in one["object"]
        assert "fsdp: a quantized base cannot be divided" in one["quantized"]
        assert "base.use(None) first" in one["in use"]
        assert "several processes: start it in one" in one["many"]
        assert "digest" in one

    assert all("processes 0 and 1 do not do the same: the adapter is" in one["text"] for one in not_summed)
    assert (root / "not-summed" / "adapter").is_dir(), "what the first has made is not lost"


@pytest.mark.slow
def test_two_processes_learn_what_one_does_on_other_models_and_with_other_ways_to_save_memory(tmp_path):
    root, (llama, gpt2, recomputed, whole, divided, gone) = tried(
        tmp_path,
        ("equal", 1, {"family": "llama"}),
        ("equal", 1, {"family": "gpt2"}),
        ("equal", 2, {"family": "llama", "checkpointing": True}),
        ("equal", 2, {"family": "gpt2"}),
        ("equal", 2, {"family": "gpt2", "fsdp": True, "checkpointing": True}),
        ("failing", 2, {"fsdp": True}),
    )
    check_equal(root, llama[0], recomputed, "llama", "llama-ddp-True")
    check_equal(root, gpt2[0], whole, "gpt2", "gpt2-ddp-False")
    check_equal(root, gpt2[0], divided, "gpt2", "gpt2-fsdp-True")
    check_divided(divided)
    assert gone[1]["text"] == "out of memory, say"
    assert gone[0]["text"].startswith("a process that shares this run is gone")
    assert gone[0]["seconds"] < 60


@pytest.mark.parametrize(
    "said", ["Connection closed by peer [::1]:42", "Read error [::1]:42: Connection reset by peer"]
)
def test_whatever_a_closed_connection_is_called_it_means_a_process_that_is_gone(monkeypatch, said):
    group = Processes(rank=0, count=2, lockstep=True)
    monkeypatch.setattr(Processes, "meet", lambda *given, **options: (0.0, 0.0))
    with pytest.raises(TrainingError, match=r"a process that shares this run is gone.*peer"), group.sharing():
        raise RuntimeError(f"[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] {said}. This may be\nlonger")


@pytest.mark.slow
def test_a_divided_run_is_resumed_and_its_settings_may_come_from_accelerate(tmp_path):
    told = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    first = {**told, "FSDP_VERSION": "1"}
    root, (killed, resumed, steady, alone, told_so, refused, own) = tried(
        tmp_path,
        ("killed", 2, {"fsdp": True}),
        ("resumed", 2, {"fsdp": True}),
        ("dropping", 2, {"fsdp": True}),
        ("equal", 1, {"family": "llama"}),
        ("equal", 2, {"family": "llama", "fsdp": None}, told),
        ("equal", 2, {"family": "llama", "fsdp": None}, first),
        ("accelerated", 1),
    )
    assert [one["killed"] for one in killed] == [True, True]
    assert {one["digest"] for one in resumed} == {one["again"] for one in resumed} == {steady[0]["digest"]}
    check_equal(root, alone[0], told_so, "llama", "llama-None-False")
    check_divided(told_so)
    assert all("fsdp_version: 1 is not used here; set fsdp_version: 2" in one["text"] for one in refused)
    assert (own[0]["started"], own[0]["precision"]) == (False, "bf16"), "nothing of accelerate's is left behind"


def command(*arguments):
    return [sys.executable, "-W", "ignore", "-c", COMMAND, "train", str(EXAMPLE_BASE), *map(str, arguments)]


def environment():
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_command_starts_its_processes_and_says_things_once(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:6]))
    options = ("--processes", 2, "--output", tmp_path / "run", "--batch-size", 2, "--no-report", "--json")
    done = subprocess.run(command(rows, *options), capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2, "six rows, two for each process"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_an_error_ctrl_c_and_a_process_that_is_killed_end_the_command(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "no completion"}\n')
    options = ("--processes", 2, "--output", tmp_path / "bad")
    done = subprocess.run(command(rows, *options), capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert done.stderr.count("rows.jsonl:1: no data format fits") == 1
    assert done.stderr.startswith("error: ")
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def started(name):
        options = ("--processes", 2, "--output", tmp_path / name, "--epochs", 500, "--no-report", "--logging-steps", 1)
        run = subprocess.Popen(command(rows, *options), stderr=subprocess.PIPE, text=True, env=environment())
        log = tmp_path / name / "log.jsonl"
        while not log.exists() or '"loss"' not in log.read_text():
            assert run.poll() is None
            time.sleep(0.1)
        return run

    run = started("stopped")
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said.count("go on with --resume") == 1
    assert len(list((tmp_path / "stopped" / "checkpoints").iterdir())) == 1

    run = started("killed")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    second = next(one for one in children if "RANK=1" in Path(f"/proc/{one}/environ").read_text().split("\0"))
    os.kill(int(second), signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "a process that shares this run is gone" in said
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("name", "said"),
    [("ACCELERATE_USE_DEEPSPEED", "DeepSpeed: only adapters"), ("ACCELERATE_USE_MEGATRON_LM", "Megatron")],
)
def test_what_accelerate_is_asked_for_in_vain_is_refused(tokenizer, monkeypatch, name, said):  # noqa: F811
    monkeypatch.setenv(name, "true")
    with pytest.raises(ConfigError, match=said):
        fresh(tokenizer).train(ROWS, **OPTIONS)


def test_dividing_a_base_needs_processes(monkeypatch, tokenizer):  # noqa: F811
    base = Base(EXAMPLE_BASE)
    with pytest.raises(ConfigError, match="fsdp: needs several processes; start with `accelerate launch`"):
        base.train(ROWS, fsdp=True, **OPTIONS)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    fresh(tokenizer).train(ROWS, **{**OPTIONS, "max_steps": 1})  # one process: there is nothing to divide


def test_a_launcher_and_the_option_do_not_contradict_each_other(monkeypatch):
    from adapterkit.cli.processes import share

    monkeypatch.setenv("WORLD_SIZE", "4")
    share(["train"], 4)
    share(["train"], 1)
    with pytest.raises(ConfigError, match="2 are asked for, and a launcher has started 4 already"):
        share(["train"], 2)
