"""What is shipped: the wheel, imports that are quick and quiet, and plugins that are plugins."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from importlib.util import find_spec

import pytest

import adapterkit
from adapterkit.cli.new import FILES
from adapterkit.hooks import PROVIDERS
from tests.support import ROOT

BUNDLED = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir() and path.name.startswith("adapterkit_")}
HEAVY = {"torch", "transformers", "peft", "accelerate", "numpy", "safetensors", "datasets", "pyarrow", "rich"}


def python(code, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, timeout=120, cwd="/"
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_every_package_and_nothing_else(wheel):
    top = {name.partition("/")[0] for name in wheel}
    assert top == {"adapterkit", *BUNDLED, f"adapterkit-{adapterkit.__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "adapterkit").rglob("*.py")}
    modules |= {str(path.relative_to(ROOT / "plugins")) for path in (ROOT / "plugins").rglob("*.py")}
    assert {name for name in wheel if name.endswith(".py")} == modules
    assert "adapterkit/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_wheel_holds_the_templates_of_new(wheel):
    held = {name.rpartition("/")[2] for name in wheel if name.startswith("adapterkit/cli/templates/")}
    assert held == set(FILES)


def test_the_wheel_holds_the_templates_of_pages(wheel):
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "adapterkit").glob("*/templates/*.*")}
    assert {"adapterkit/report/templates/run.html", "adapterkit/report/templates/style.css"} <= templates
    assert templates <= set(wheel)


def test_the_wheel_holds_the_servers_page(wheel):
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "adapterkit/serving/http/assets").iterdir()}
    assert "adapterkit/serving/http/assets/index.html" in assets
    assert assets <= set(wheel)


def test_the_wheel_declares_every_bundled_plugin_and_the_command(wheel):
    text = next(content.decode() for name, content in wheel.items() if name.endswith("entry_points.txt"))
    assert "adapterkit = adapterkit.cli:main" in text
    declared = {
        line.partition("=")[2].strip() for line in text.partition("[adapterkit]")[2].splitlines() if "=" in line
    }
    assert declared == BUNDLED
    assert {entry.value for entry in entry_points(group="adapterkit")} >= BUNDLED


def test_importing_adapterkit_imports_nothing_heavy():
    done = python(f"import adapterkit, sys; print(sorted({HEAVY} & set(sys.modules)))", "-W", "error")
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.slow
def test_every_public_name_comes_from_a_module_that_can_be_imported_first():
    homes = sorted(set(adapterkit._HOMES.values()))
    for home in homes:  # each in a process of its own: an order in which imports go round in a circle would show
        done = python(f"import adapterkit.{home}")
        assert done.returncode == 0, done.stderr


def test_every_module_is_imported_without_a_warning_of_its_own():
    names = [
        m.name for m in pkgutil.walk_packages(adapterkit.__path__, "adapterkit.") if m.name != "adapterkit.__main__"
    ]
    names += sorted(BUNDLED)
    names += [
        m.name for one in sorted(BUNDLED) for m in pkgutil.walk_packages([str(ROOT / "plugins" / one)], f"{one}.")
    ]
    assert len(names) > 60
    if find_spec("triton") is None:  # torch brings it where there is a GPU to write kernels for
        on_gpu = {f"adapterkit.kernels.{name}" for name in ("on_gpu", "decoding_on_gpu", "paged_on_gpu")}
        assert on_gpu < set(names)
        names = [name for name in names if name not in on_gpu]
    code = (
        "import importlib, warnings\n"
        "warnings.simplefilter('error')\n"
        "warnings.filterwarnings('ignore', module=r'(?!adapterkit)')\n"
        f"for name in {names}: importlib.import_module(name)"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# -- plugins are plugins ----------------------------------------------------------------------------------------------


def names_bundled_plugins(source):
    """Bundled plugins that a file names; some are called as a hook is, and then only an import, or what is in them, tells."""
    plain, shared = BUNDLED - set(PROVIDERS), BUNDLED & set(PROVIDERS)
    found = {name for name in plain if name in source}
    return found | {
        name for name in shared if re.search(rf"import {name}|from {name}|module\(.{name}|{name}\.", source)
    }


def test_adapterkit_never_names_a_bundled_plugin():
    naming = {
        str(path.relative_to(ROOT)): found
        for path in (ROOT / "adapterkit").rglob("*.py")
        if (found := names_bundled_plugins(path.read_text()))
    }
    assert naming == {}
    for blind in ("x = 'adapterkit_lora'", "import_module('adapterkit_formats')", "from adapterkit_metrics import f1"):
        assert names_bundled_plugins(blind), blind


def private_imports(source, own):
    """What a plugin imports of adapterkit, or of another plugin, beyond what they name in ``__all__``."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wrong += [
                alias.name for alias in node.names if alias.name.partition(".")[0] in {"adapterkit", *BUNDLED} - {own}
            ]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            top = (node.module or "").partition(".")[0]
            exported = importlib.import_module(top).__all__ if node.module == top in {"adapterkit", *BUNDLED} else ()
            public = all(alias.name in exported for alias in node.names)
            if top in {"adapterkit", *BUNDLED} - {own} and not public:
                wrong.append(f"from {node.module} import {', '.join(alias.name for alias in node.names)}")
    return wrong


@pytest.mark.parametrize("plugin", sorted(BUNDLED))
def test_a_bundled_plugin_imports_public_names_only(plugin):
    for path in (ROOT / "plugins" / plugin).rglob("*.py"):
        assert private_imports(path.read_text(), plugin) == [], path


@pytest.mark.parametrize(
    "source",
    [
        "import adapterkit.sites",
        "import adapterkit as kit",
        "from adapterkit.sites import Site",
        "from adapterkit import sites",
        "def f():\n    from adapterkit.config import build_config",
        "from adapterkit_objectives import sft",
        "from adapterkit_objectives.sft import sft_loss",
    ],
)
def test_a_private_import_would_be_seen(source):
    assert private_imports(source, "adapterkit_lora")
    assert (
        private_imports(
            "from adapterkit import Site\nfrom .config import x\nfrom adapterkit_lora import y", "adapterkit_lora"
        )
        == []
    )
