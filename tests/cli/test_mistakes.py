"""What users get wrong: each error fits on a screen and names its cure, in Python and on the command line."""

import math
import shutil

import pytest

from adapterkit import AdapterkitError, Base, Registry
from adapterkit.cli import main
from adapterkit.discovery import find
from adapterkit.testing import tiny_llama
from tests.core.test_registry import found
from tests.support import EXAMPLE_BASE

ROWS = [{"prompt": "which one", "completion": "this one"}]
MOST_LINES, WIDTH = 12, 80
PLUGINS = {
    "ill": ImportError("cannot import name 'Nonsense' from 'adapterkit'"),
    "four_bit": ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"),
    "needy": ModuleNotFoundError("No module named 'nothing_of_that_name'", name="nothing_of_that_name"),
}
MISTAKES = {
    "a method that is misspelt": (
        {"method": "lroa"},
        ["--method", "lroa"],
        ["no method 'lroa'", "did you mean 'lora'?"],
    ),
    "an option that is misspelt": ({"rnak": 4}, ["--rnak", "4"], ["rnak", "id you mean", "rank"]),
    "an option of another library": ({"lora_alpha": 4}, ["--lora-alpha", "4"], ["alpha", "id you mean"]),
    "a value that does not fit": ({"rank": 0}, ["--rank", "0"], ["rank: must be >= 1: 0"]),
    "a target that matches nothing": (
        {"target_modules": ("q_porj",)},
        ["--target-modules", "q_porj"],
        ["no target module 'q_porj'", "did you mean 'q_proj'?", "Available: all-linear, down_proj,"],
    ),
    "a pattern that matches nothing": (
        {"target_modules": r".*\.h\..*attn"},
        ["--target-modules", r".*\.h\..*attn"],
        ["no target module", "Available: all-linear, down_proj,"],
    ),
    "a method whose package is broken": (
        {"method": "ill"},
        ["--method", "ill"],
        ["dist 1.0 provides it, but is broken: ImportError: cannot import name", "`pip install --upgrade dist`"],
    ),
    "a method whose package misses what we can bring": (
        {"method": "four_bit"},
        ["--method", "four_bit"],
        ["No module named 'bitsandbytes'", "`pip install 'adapterkit[quantize]'`"],
    ),
    "a method whose package misses something else": (
        {"method": "needy"},
        ["--method", "needy"],
        ["No module named 'nothing_of_that_name'", "`pip install nothing_of_that_name`"],
    ),
}


def registry():
    """What is installed, and three plugins that cannot be imported."""
    return Registry([*find(), *(found(name, error) for name, error in PLUGINS.items())], {})


def lines(text):
    return sum(max(1, math.ceil(len(line) / WIDTH)) for line in text.splitlines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    tiny_llama(vocab_size=8192, max_position_embeddings=128).save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EXAMPLE_BASE / name, folder / "base" / name)
    (folder / "rows.jsonl").write_text('{"prompt": "which one", "completion": "this one"}\n')
    return folder


@pytest.mark.parametrize(("options", "cures"), [(one, cures) for one, _, cures in MISTAKES.values()], ids=MISTAKES)
def test_in_python(folder, options, cures):
    base = Base(folder / "base", registry=registry())
    with pytest.raises(AdapterkitError) as caught:
        base.train(ROWS, **options)
    said = str(caught.value)
    assert [cure for cure in cures if cure not in said] == []
    assert lines(said) <= MOST_LINES, said


@pytest.mark.parametrize(("options", "cures"), [(one, cures) for _, one, cures in MISTAKES.values()], ids=MISTAKES)
def test_on_the_command_line(folder, capsys, monkeypatch, tmp_path, options, cures):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setattr("adapterkit.cli.plugins.default_registry", registry)
    code = main(["train", "base", "rows.jsonl", "--output", str(tmp_path / "out"), *options])
    out, said = capsys.readouterr()
    assert (code, out) == (2, "")
    assert [cure for cure in cures if cure not in said] == []
    assert lines(said) <= MOST_LINES, said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_list_of_names_that_is_long_is_cut_and_families_come_last():
    from adapterkit import UnknownNameError

    names = [f"family:{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["lora", "full"]
    said = str(UnknownNameError("method", "lroa", names))
    assert said.startswith("no method 'lroa'; did you mean 'lora'? Available: full, lora, family:a, ")
    assert said.endswith("family:r and 8 more.")


def test_lines_are_counted_as_a_terminal_shows_them():
    assert lines("a\n\n" + "b" * 81) == 4
