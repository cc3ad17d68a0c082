"""``adapterkit new``: a package that works, under a name that is free, and nothing of the user's in danger."""

import subprocess
import sys
import tomllib

import pytest

from adapterkit import Base, Registry
from adapterkit.cli import main
from adapterkit.cli import new as module
from adapterkit.cli.new import FILES
from adapterkit.testing import tiny_llama
from tests.support import ROOT

EXPECTED = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".gitignore",
    "src/adapterkit_my_scale.py",
    "tests/test_my_scale.py",
}


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs `adapterkit new` in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        code = main(["new", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def package(run, tmp_path):
    run("my-scale")
    return tmp_path / "adapterkit-my-scale"


def held(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_prints_the_folder_and_says_what_to_do_next(run, tmp_path):
    code, out, err = run("my-scale")
    assert (code, out) == (0, "adapterkit-my-scale\n")
    assert "cd adapterkit-my-scale\n" in err
    assert 'pip install -e ".[test]"\n' in err
    assert "adapterkit plugins --why my_scale\n" in err
    assert held(tmp_path / "adapterkit-my-scale") == EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == ["adapterkit-my-scale"], "nothing else is left"


def test_nothing_is_left_to_be_filled_in(package):
    texts = {name: (package / name).read_text() for name in held(package)}
    assert not [name for name, text in texts.items() if "$" in text or "[yyyy]" in text or "TODO" in text]
    assert texts["LICENSE"] in (ROOT / "LICENSE").read_text(), "the same licence, without its appendix of blanks"


def test_its_metadata_names_the_plugin(package):
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == "adapterkit-my-scale"
    assert project["entry-points"]["adapterkit"] == {"my_scale": "adapterkit_my_scale"}
    assert project["dependencies"][0] == "adapterkit>=0.1"


def test_its_code_is_as_tidy_as_ours(package):
    check = [
        "check",
        "--config",
        ROOT / "pyproject.toml",
        "--extend-ignore",
        "I001,INP001,S101,ANN,D103,ARG002",
        package,
    ]
    for command in (check, ["format", "--check", "--config", ROOT / "pyproject.toml", package]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_method_works_before_anything_is_installed(package, ids):
    registry = Registry()
    registry.add(package / "src" / "adapterkit_my_scale.py")
    base = Base(tiny_llama(), registry=registry)
    method = registry.method("my_scale")
    config = registry.call("configure", method, config=method.config(limit=2.0), sites=base.sites)
    layers = registry.call("build", method, config=config, sites=base.sites)
    assert len(layers) == 14
    effects = registry.call("lower", method, layers=layers)
    assert all(one.vector.tolist() == [1.0] * len(one.vector) for here in effects.values() for one in here)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LoRA", "'LoRA' is no name for a method: it takes at most 50 lower-case letters"),
        ("my scale", "try 'my_scale'"),
        ("3d", "try 'd'"),
        ("-", "try 'my_method'"),
        ("../up", "try 'up'"),
        ("adapterkit-mine", "try 'mine'"),
        ("a" * 51, f"try '{'a' * 50}'"),
        ("größe", "'größe' is no name"),
        ("lora", "'lora' is installed already, by adapterkit 0.1.0; try 'my_lora'"),
        ("prompt-completion", "'prompt_completion' is installed already"),
        ("formats", "by whoever brings the module adapterkit_formats"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_one_that_can(run, tmp_path, name, said):
    code, out, err = run("--", name)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") <= 3
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_is_one_of_several_of_its_plugin_is_taken_too(run, monkeypatch):
    from tests.core.test_registry import Doubling, Options, found, plugin_of

    several = Registry([found("several", plugin_of(Doubling("one", Options), Doubling("two", Options)))], {})
    monkeypatch.setattr("adapterkit.cli.plugins.default_registry", lambda: several)
    assert "'two' is installed already, by dist 1.0; try 'my_two'" in run("two")[2]


@pytest.mark.parametrize("make", ["file", "folder", "link"])
def test_what_is_there_is_left_alone(run, tmp_path, make):
    target = tmp_path / "adapterkit-mine"
    if make == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    elif make == "file":
        target.write_text("years of work")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("mine")
    assert (code, out) == (2, "")
    assert "nothing was written:\n  - 'adapterkit-mine' is there already; move it, or give --directory" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_empty_is_taken_and_one_that_is_not_there_is_made(run, tmp_path):
    (tmp_path / "adapterkit-mine").mkdir()
    assert run("mine")[0] == 0
    assert run("mine", "--directory", "deep/er")[:2] == (0, "deep/er/adapterkit-mine\n")
    assert len(held(tmp_path / "deep" / "er" / "adapterkit-mine")) == len(FILES)


def test_a_folder_that_is_filled_in_the_meantime_is_left_alone(run, tmp_path, monkeypatch):
    (tmp_path / "adapterkit-mine").mkdir()
    monkeypatch.setattr(module, "_is_empty", lambda folder: (folder / "thesis.txt").write_text("years of work") > 0)
    code, _, err = run("mine")
    assert code == 1
    assert err.startswith("error: the package cannot be written to 'adapterkit-mine': ")
    assert held(tmp_path) == {"adapterkit-mine/thesis.txt"}


def test_what_goes_wrong_half_way_leaves_nothing(run, tmp_path, monkeypatch):
    def full(template):
        if template.startswith("test"):
            raise OSError(28, "No space left on device")
        return ""

    monkeypatch.setattr(module, "_read", full)
    code, out, err = run("mine")
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []
