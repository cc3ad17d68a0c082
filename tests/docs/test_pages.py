import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.generate import QUICKSTART, generated
from tests.docs.pages import DOCS, README, ROOT, blocks, pages
from tests.docs.running import Page, own_environment
from tests.support import code_lines

SLOW = ("docs/how-to/publish-an-adapter.md",)
"""Pages that take longer than half a minute."""


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """A copy, so that no page can write into the repository."""
    return shutil.copytree(ROOT / "examples", tmp_path_factory.mktemp("docs") / "examples")


@pytest.fixture
def folder(examples, tmp_path, monkeypatch):
    """Where a page runs: an empty folder in which only ``examples`` can be reached."""
    (tmp_path / "examples").symlink_to(examples)
    monkeypatch.chdir(tmp_path)
    with own_environment(tmp_path):
        yield tmp_path


def run(text):
    """A page's blocks, and as they are when they are run."""
    page = Page()
    return [(block, page.shown(block)) for block in blocks(text)]


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=name_of(p), marks=[pytest.mark.slow] if name_of(p) in SLOW else []) for p in pages()]
)
def test_what_a_page_shows_is_what_happens(page, folder):
    for block, real in run(page.read_text(encoding="utf-8")):
        assert block.text == real, f"{name_of(page)}:{block.line}"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_what_a_page_takes_from_the_code_is_current(page):
    text = page.read_text(encoding="utf-8")
    assert text == generated(text), "run `python tests/docs/generate.py`"


def test_the_readme_shows_the_quickstart_as_it_is():
    (shown,) = [block for block in blocks(README.read_text(encoding="utf-8")) if block.marked]
    assert shown.text == QUICKSTART.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_quickstart_runs_and_learns_both_tasks(examples):
    """It ends with an error when the adapters answer otherwise after they were saved and loaded in a fresh process."""
    said = subprocess.run([sys.executable, examples / "quickstart.py"], check=True, stdout=subprocess.PIPE, text=True)
    accuracy = dict(re.findall(r"(Banking77|both merged).*?([0-9.]+)% +.$", said.stdout, re.MULTILINE))
    assert float(accuracy["Banking77"]) >= 74.0, "one pass over the training split, the whole official test split"
    assert float(accuracy["both merged"]) >= 97.0


def test_the_first_plugin_begins_with_eight_lines():
    first = blocks((DOCS / "tutorial" / "first-plugin.md").read_text(encoding="utf-8"))[0]
    assert first.text.startswith("# scale.py\n")
    assert code_lines(first.text) == 8


def test_the_readme_names_the_command_for_the_tests():
    assert "`make test`" in README.read_text(encoding="utf-8")


# Each of these shows that the guard above it can fail.


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("```python\nprint(1 + 1)\n#> 3\n```\n", "print(1 + 1)\n#> 2\n"),
        ("```python\nprint('a')\n```\n", "print('a')\n#> a\n"),
        ("```python\nx = 1\n#> 1\n```\n", "x = 1\n"),
        ("```python\nprint('abc')\n#> b…\n```\n", "print('abc')\n#> abc\n"),
        ("```console\n$ adapterkit --version\n9.9\n```\n", None),
        ("```console\n$ adapterkit plugins --why none\n```\n", None),
    ],
)
def test_a_page_that_shows_something_else_is_found(folder, wrong, right):
    ((block, real),) = run(wrong)
    assert real != block.text
    assert right is None or real == right


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint('abc')\n#> a…\n```\n",
        "```python\nfor n in range(2):\n    print(n)\n    #> 0\n    #> 1\n```\n",
        "```console\n$ adapterkit plugins --why lora\n…\n    provides method lora\n$ rm -rf never\n```\n",
        "```text\nnot run\n```\n",
    ],
)
def test_a_page_that_shows_what_happens_is_left_alone(folder, text):
    ((block, real),) = run(text)
    assert real == block.text


def test_a_block_that_fails_fails_its_page(folder):
    with pytest.raises(ZeroDivisionError):
        run("```python\n1 / 0\n```\n")


def test_blocks_share_names_and_write_files_where_they_run(folder):
    found = run("```python\nx = 2\n```\n\n```python\nprint(x)\n#> 2\n```\n\n```python\n# made.py\ny = 1\n```\n")
    assert all(block.text == real for block, real in found)
    assert (folder / "made.py").read_text() == "y = 1\n"


def test_a_table_that_is_out_of_date_is_found():
    old = "<!-- generated: TrainOptions -->\nold\n<!-- end -->\n"
    assert generated(old) != old
    assert "`learning_rate`" in generated(old)
