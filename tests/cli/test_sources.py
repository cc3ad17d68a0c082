"""Files with weights, and errors that speak of options as the command line has them."""

import pytest

from adapterkit import ConfigError
from adapterkit.cli.main import main
from adapterkit.cli.sources import on_command_line, sources
from tests.support import DATA, EXAMPLE_BASE


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "c=2"):
        (tmp_path / name).write_text("prompt,completion\nq,a\n")


@pytest.mark.parametrize(
    ("data", "also", "expected"),
    [
        ("a.csv", [], "a.csv"),
        ("a.csv", ["b.csv"], ["a.csv", "b.csv"]),
        ("a.csv=2", [], {"a.csv": 2.0}),
        ("a.csv", ["b.csv=0.5"], {"a.csv": 1.0, "b.csv": 0.5}),
        ("c=2", [], "c=2"),
    ],
)
def test_files_and_weights(files, data, also, expected):
    assert sources(data, also) == expected


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a.csv", "a.csv=2"], "'a.csv' is named twice"),
        (["d.csv"], "DATA does not fit"),
        (["a.csv", "d.csv=2"], "--also does not fit"),
        (["a.csv=x"], "no file 'a.csv=x'"),
    ],
)
def test_files_that_do_not_fit(files, words, part):
    with pytest.raises(ConfigError) as caught:
        sources(words[0], words[1:])
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "for example: columns={'prompt': 'SMS', 'completion': 'Label'}",
            "--columns.prompt SMS --columns.completion Label",
        ),
        ("with columns={'prompt': 'a b'}. Formats", "with --columns.prompt 'a b'. Formats"),
        ("columns={'prompt': \"it's }\"} works", "--columns.prompt 'it'\"'\"'s }' works"),
        ("columns= does not fit:\n  - 'x'", "--columns does not fit:\n  - 'x'"),
        ("; columns={'completion': …} names another", "; --columns.completion … names another"),
        ("step 3 of 9; go on with resume=True", "step 3 of 9; go on with --resume"),
        ("columns={ nothing", "columns={ nothing"),
        ("no columns here", "no columns here"),
    ],
)
def test_errors_speak_of_options(message, expected):
    assert expected in on_command_line(message)


def test_the_command_says_what_would_have_worked(tmp_path, capsys):
    data = str(DATA / "sms_spam.tsv")
    assert main(["train", str(EXAMPLE_BASE), data, "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "for example: --columns.prompt SMS --columns.completion Label" in said
    assert "columns=" not in said
