"""A plugin that cannot be loaded: what went wrong, on which line of it, and what would cure it."""

import pytest

from adapterkit import BrokenPluginError, Registry, cures
from adapterkit.cures import explain

REQUIREMENTS = {
    "adapterkit": [
        "torch>=2.6",
        "bitsandbytes>=0.49; extra == 'dev'",
        "ruff; extra == 'dev'",
        'bitsandbytes>=0.49 ; python_version > "3" and extra == "quantize"',
    ],
    "adapterkit-fast": ["Some.Kernels>=1; extra == 'gpu'", "bitsandbytes; extra == 'small'"],
    "adapterkit-bare": None,
}


def missing(name):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture(autouse=True)
def _requirements(monkeypatch):
    def requires(distribution):
        if distribution not in REQUIREMENTS:
            raise cures.metadata.PackageNotFoundError(distribution)
        return REQUIREMENTS[distribution]

    monkeypatch.setattr(cures.metadata, "requires", requires)


@pytest.mark.parametrize(
    ("error", "distribution", "cure"),
    [
        (missing("nothing"), "", "try `pip install nothing`"),
        (missing("nothing.at.all"), "", "try `pip install nothing`"),
        (missing("bitsandbytes"), "", "try `pip install 'adapterkit[quantize]'`"),
        (missing("bitsandbytes"), "adapterkit-bare", "try `pip install 'adapterkit[quantize]'`"),
        (missing("bitsandbytes.nn"), "not-there", "try `pip install --upgrade bitsandbytes`"),
        (missing("bitsandbytes"), "adapterkit-fast", "try `pip install 'adapterkit-fast[small]'`"),
        (missing("some_kernels"), "adapterkit-fast", "try `pip install 'adapterkit-fast[gpu]'`"),
        (missing("torch.nothing"), "", "in a version that does not have it: try `pip install --upgrade torch`"),
        (
            ImportError("cannot import name 'x'"),
            "adapterkit-fast",
            "try `pip install --upgrade adapterkit-fast`, or ask",
        ),
        (ZeroDivisionError("division by zero"), "", "ZeroDivisionError: division by zero"),
    ],
)
def test_the_cure_is_what_would_help(error, distribution, cure):
    said = explain(error, distribution)
    assert said.startswith(f"{type(error).__name__}: {error}")
    assert cure in said


def test_the_line_is_the_plugins_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from adapterkit import hookimpl\n\n\ndef work():\n    return 1 / 0\n\n\nwork()\n")
    with pytest.raises(BrokenPluginError, match=r"division by zero \(mine.py, line 5\)"):
        Registry([], {}).add(file)
    file.write_text("from adapterkit import hookimpl\n\n\n@hookimpl\ndef adapterkit_methods():\n    return nothing\n")
    with pytest.raises(BrokenPluginError, match=r"'nothing' is not defined \(mine.py, line 6\)"):
        Registry([], {}).add(file)
    file.write_text("from adapterkit import hookimpl\n\n\n@hookimpl\ndef adapterkit_methods():\n    yield 1\n")
    with pytest.raises(BrokenPluginError, match=r"must yield Method records, and yielded 1$"):
        Registry([], {}).add(file)
