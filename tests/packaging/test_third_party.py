"""A third party's method is a distribution of its own: it is found, used and tested as the bundled ones are."""

import csv
import json

import pytest

from tests.packaging.environments import Environment
from tests.support import DATA, EXAMPLE_BASE, ROOT

pytestmark = pytest.mark.slow
NAMES = ("ia3", "quiet_scale")
IA3 = ROOT / "examples" / "adapterkit-ia3"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with adapterkit's wheel in it."""
    made = Environment.make(tmp_path_factory.mktemp("third_party") / "environment")
    made.install(ROOT)
    return made


@pytest.fixture(scope="module")
def projects(environment, tmp_path_factory):
    """Two distributions that are installed beside it; one was written there by ``adapterkit new``."""
    folder = tmp_path_factory.mktemp("projects")
    said = environment.run("adapterkit", "new", "quiet-scale", "--directory", folder)
    assert said.stdout.strip() == str(folder / "adapterkit-quiet-scale"), said.stderr
    made = {"ia3": IA3, "quiet_scale": folder / "adapterkit-quiet-scale"}
    environment.install(*made.values())
    return made


def rows(environment, *options):
    return {row["name"]: row for row in json.loads(environment.run("adapterkit", "plugins", "--json", *options).stdout)}


def test_the_environment_knows_nothing_of_the_repository(environment, projects):
    said = environment.run(
        "python", "-c", "import adapterkit, adapterkit_ia3; print(adapterkit.__file__, adapterkit_ia3.__file__)"
    )
    assert said.stdout.count(str(environment.folder)) == 2, said.stderr


@pytest.mark.parametrize("name", NAMES)
def test_its_row_is_like_that_of_a_bundled_method(environment, projects, name):
    """There is no list of defaults: a stranger's plugin comes through the same door."""
    listed, loaded = rows(environment), rows(environment, "--check")
    assert {field: type(value) for field, value in listed[name].items()} == {
        field: type(value) for field, value in listed["lora"].items()
    }
    about = {"name": name, "distribution": f"adapterkit-{name.replace('_', '-')}", "version": "0.1.0"}
    about["module"] = f"adapterkit_{name}"
    assert listed[name] == {**listed["lora"], **about}
    assert loaded[name] == {**loaded["lora"], **about, "provides": [f"method {name}"]}


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_its_own_tests(environment, projects, name):
    said = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=projects[name])
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_answers_from_the_command_line(environment, projects, name, tmp_path):
    with (DATA / "sms_spam.tsv").open(encoding="utf-8", newline="") as file:
        messages = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    kinds = [[row for row in messages if row["Label"] == label][:100] for label in ("ham", "spam")]
    few = [{"prompt": row["SMS"], "completion": row["Label"]} for pair in zip(*kinds, strict=True) for row in pair]
    (tmp_path / "rows.json").write_text(json.dumps(few))
    command = ["train", EXAMPLE_BASE, "rows.json", "--method", name, "--output", "out", "--learning-rate", "0.1"]
    trained = environment.run("adapterkit", *command, cwd=tmp_path)
    assert (trained.returncode, trained.stdout) == (0, "out/adapter\n"), trained.stderr
    manifest = json.loads((tmp_path / "out" / "adapter" / "adapterkit.json").read_text())
    assert manifest["plugin"] == f"adapterkit-{name.replace('_', '-')} 0.1.0"
    offer = "URGENT! You have won a 1 week FREE membership in our £100,000 prize draw. Call 09061701461"
    asked = environment.run("adapterkit", "generate", EXAMPLE_BASE, offer, "--adapter", "out/adapter", cwd=tmp_path)
    assert asked.stdout == "spam\n", asked.stderr
