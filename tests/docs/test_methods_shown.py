"""Every method that a page shows keeps the contract: a reader will begin from it."""

import re

import pytest

from adapterkit.testing import run
from tests.docs.pages import DOCS, blocks

_METHOD = re.compile(r"yield \w+\(\s*\"(\w+)\"")


def shown(page):
    """The methods that a page writes into files: name and code."""
    code = [block.text for block in blocks((DOCS / page).read_text(encoding="utf-8")) if block.text.startswith("# ")]
    return [(name, text) for text in code for name in _METHOD.findall(text)]


METHODS = [*shown("tutorial/first-plugin.md"), *shown("how-to/write-a-method.md")]


def test_the_pages_show_methods():
    assert [name for name, _ in METHODS] == ["scale", "scale", "scale", "direction", "opening", "norms"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), METHODS, ids=[name for name, _ in METHODS])
def test_it_keeps_the_contract(name, code, tmp_path):
    file = tmp_path / f"{name}.py"
    file.write_text(code)
    assert [result for result in run(name, plugin=file) if result.outcome == "failed"] == []
