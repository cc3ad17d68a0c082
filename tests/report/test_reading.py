"""Run folders are read as runs leave them, killed ones too; anything else is an error that names the file and the line."""

import json

import pytest

from adapterkit import RunError, write_report
from adapterkit.report.reading import read_run
from tests.report.run_folders import RUN, make_run, records


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "cards")


def test_a_folder_that_is_no_run_leads_to_the_one_that_is_meant(tmp_path, folder):
    (folder / "adapter").mkdir()
    with pytest.raises(RunError, match=r"no run\.json in it; did you mean '.*cards'\?"):
        read_run(folder / "adapter")
    with pytest.raises(RunError, match=r"did you mean '.*cards'\?"):
        read_run(tmp_path)
    with pytest.raises(RunError, match=r"it is a file; did you mean '.*cards'\?"):
        read_run(folder / "log.jsonl")
    with pytest.raises(RunError, match="there is no such folder"):
        read_run(tmp_path / "card")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"train\(\.\.\., output=\.\.\.\) makes one"):
        read_run(tmp_path / "empty")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, r"run\.json has schema 2; 1 is known here: update adapterkit"),
        ({"schema": None}, "has schema None"),
        ({"status": "done"}, "status 'done' is none of running, finished"),
        ({"method": None}, "method is missing"),
        ({"seconds": "long"}, "seconds must be a number from 0 to 1e[+]18, not 'long'"),
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"last_step": True}, "last_step must be a number"),
        ({"tokens": 10**400}, "tokens must be a number"),
        ({"base": ["x"]}, "base must be an object"),
        ({"reason": 7}, "reason must be a text"),
    ],
)
def test_a_run_file_that_is_not_as_it_should_be_is_refused(tmp_path, changes, message):
    with pytest.raises(RunError, match=message):
        read_run(make_run(tmp_path / "cards", **changes))


def test_fields_that_a_later_version_adds_are_no_error(tmp_path):
    assert read_run(make_run(tmp_path / "cards", colour="red")).run.method == "lora"


def test_a_log_that_is_cut_in_its_last_line_is_read_up_to_there(folder):
    whole = (folder / "log.jsonl").read_bytes()
    for cut in (1, 5, 30):
        (folder / "log.jsonl").write_bytes(whole[:-1] + b'\n{"step": 152, "loss": 0.41, "learning_rate'[: cut + 1])
        found = read_run(folder)
        assert found.log == records()
        assert found.log_is_cut
    (folder / "log.jsonl").write_bytes(whole[:-1])  # the last line is whole, only its end is missing
    assert read_run(folder).log == records()
    assert not read_run(folder).log_is_cut
    (folder / "log.jsonl").write_bytes(whole + '{"step": 152, "é'.encode()[:-1])
    assert read_run(folder).log_is_cut


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"step": 4, "loss"', r"log\.jsonl, line 3: not valid JSON"),
        (b"\xff\xfe", r"line 3: not valid JSON"),
        (b"[1, 2]", r"line 3: a JSON object belongs here, not list"),
        (b'{"loss": 1.0}', r"record 3: step must be a whole number from 0, not None"),
        (b'{"step": -1}', r"record 3: step must be a whole number from 0, not -1"),
        (b'{"step": 1.5}', r"record 3: step must be a whole number"),
        (b'{"step": 1, "x": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 64 levels"),
        (b'{"step": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64 levels"),
    ],
)
def test_a_line_that_is_broken_elsewhere_is_named(folder, line, message):
    lines = (folder / "log.jsonl").read_bytes().split(b"\n")
    (folder / "log.jsonl").write_bytes(b"\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(RunError, match=message):
        read_run(folder)


def test_a_broken_file_leaves_the_report_that_was_there(folder):
    before = write_report(folder).read_bytes()
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match=r"evaluation\.json: not valid JSON"):
        write_report(folder)
    (folder / "evaluation.json").write_text("[]")
    with pytest.raises(RunError, match=r"evaluation\.json must hold a JSON object, not list"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_a_run_that_has_just_begun_is_a_run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1, "method": "lora", "status": "running"}))
    found = read_run(tmp_path)
    assert (found.log, found.evaluation, found.audit, found.manifest) == ([], None, None, None)
    assert RUN["status"] != found.run.status
