"""`adapterkit audit`."""

import json
import subprocess
import sys

import pytest

from adapterkit.audit import read_canaries
from adapterkit.cli import main
from tests.support import EXAMPLE_BASE, make_adapter


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"What is the number {i}?", "completion": ("odd", "even")[i % 2]} for i in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_json_goes_to_standard_output_and_the_page_to_its_file(rows, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["audit", str(rows), "--json", "--html", str(page), "--near-duplicates", "0.9"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["schema"], found["rows"], found["source"]) == (1, 30, "rows.jsonl")
    assert found["options"]["near_duplicates"] == 0.9
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(page) in said.err


def test_findings_are_shown_and_do_not_fail_the_command_unless_asked(rows, capsys):
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"prompt": "key", "completion": "AKIA' + 'IOSFODNN7EXAMPLF"}\n')
    assert main(["audit", str(rows)]) == 0
    said = capsys.readouterr()
    assert "serious  Secrets" in said.out
    assert said.err == ""
    assert main(["audit", str(rows), "--strict"]) == 1
    said = capsys.readouterr()
    assert "serious  Secrets" in said.out
    assert said.err == "error: 1 serious finding: secrets\n"


def test_strict_lets_warnings_pass(rows):
    assert main(["audit", str(rows), "--strict"]) == 0


def test_with_a_base_and_an_adapter_everything_is_checked(rows, tmp_path, example_base, capsys):
    adapter = make_adapter(example_base, rank=2).save(tmp_path / "adapter")
    given = ["--base", str(EXAMPLE_BASE), "--adapter", str(adapter), "--eval-data", str(rows), "--memory-tokens", "4"]
    assert main(["audit", str(rows), *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"truncated rows", "overlap with evaluation rows", "repeated completions"} <= set(found["made"])


def test_canaries_are_planted_written_down_and_asked_for(rows, tmp_path, example_base, capsys):
    planted = tmp_path / "planted.jsonl"
    assert main(["audit", str(rows), "--plant", str(planted), "--secrets", "2", "--repeats", "3", "--seed", "7"]) == 0
    said = capsys.readouterr()
    secrets = tmp_path / "planted.canaries.json"
    assert said.out.split() == [str(planted), str(secrets)]
    assert said.err == "2 secrets in 6 of 36 rows\n"
    assert [one.repeats for one in read_canaries(secrets)] == [3, 3]
    adapter = make_adapter(example_base, rank=2).save(tmp_path / "adapter")
    given = ["--base", str(EXAMPLE_BASE), "--adapter", str(adapter), "--canaries", str(secrets), "--alternatives", "7"]
    assert main(["audit", str(planted), *given]) == 0
    assert "Canary exposure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--adapter", "out/adapter"], "needs the base"),
        (["--eval-data", "none.csv"], "--eval-data does not fit"),
        (["--canaries", "none.json"], "--canaries does not fit"),
        (["--near-duplicates", "2"], "near_duplicates: must be <= 1.0"),
        (["--plant", "rows.txt"], "name the file .jsonl"),
        (["--plant", "DATA"], "is DATA; name another file"),
    ],
)
def test_misuse_is_said_before_anything_is_read(rows, capsys, given, message):
    assert main(["audit", str(rows), *(str(rows) if word == "DATA" else word for word in given)]) == 2
    assert message in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_said_before_the_work(rows, tmp_path, capsys):
    assert main(["audit", str(rows), "--html", str(tmp_path / "none" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys; from adapterkit.cli import main; main(['audit', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
