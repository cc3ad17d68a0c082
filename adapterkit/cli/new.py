"""``adapterkit new``: a package with a method of one's own, to begin from."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import adapterkit
from adapterkit.errors import AdapterkitError, ConfigError

from .plugins import registry_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.registry import Registry

__all__ = ["new"]

FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "LICENSE.in": "LICENSE",
    "gitignore.in": ".gitignore",
    "method.py.in": "src/$module.py",
    "test_method.py.in": "tests/test_$name.py",
}
"""Where each template goes."""
NAME = re.compile(r"(?!adapterkit)[a-z][a-z0-9]*([_-][a-z0-9]+)*")
LONGEST = 50
NEXT = """\
next:
  cd {folder}
  pip install -e ".[test]"
  pytest
  adapterkit plugins --why {name}
the method is in {module}: put your own in its place"""


def new(
    name: Annotated[str, Parameter(help="The method's name: what users will write in `method=`.")],
    *,
    directory: Annotated[Path, Parameter(help="Where the package's folder is made.")] = Path(),
) -> None:
    """Write a package with a method of your own: a small one that works, with its tests."""
    _check_name(name)
    name = name.replace("-", "_")
    _check_free(name, registry_with(()))
    words = {
        "name": name,
        "module": f"adapterkit_{name}",
        "distribution": f"adapterkit-{name.replace('_', '-')}",
        "title": "".join(part.capitalize() for part in name.split("_")),
        "version": ".".join(adapterkit.__version__.split(".")[:2]),
    }
    folder = directory / words["distribution"]
    _write(folder, words)
    print(folder)
    print(NEXT.format(folder=folder, name=name, module=folder / "src" / f"{words['module']}.py"), file=sys.stderr)


def _check_name(name: str) -> None:
    """Refuse what cannot be the name of a method, a module and a distribution at once.

    Raises:
        ConfigError: With a name that can.
    """
    if NAME.fullmatch(name) and len(name) <= LONGEST:
        return
    words = re.findall(r"[a-z0-9]+", name.lower().replace("adapterkit", ""))
    near = "_".join(words).lstrip("0123456789_")[:LONGEST].rstrip("_") or "my_method"
    rule = f"it takes at most {LONGEST} lower-case letters, digits and underscores, beginning with a letter"
    raise ConfigError("NAME does not fit", [f"{name!r} is no name for a method: {rule}; try {near!r}"])


def _check_free(name: str, registry: Registry) -> None:
    """Refuse a name that something installed has: a second one of that name would make both unusable.

    Raises:
        ConfigError: With one that nothing has.
    """
    registry.load_all()
    taken: dict[str, str] = {}
    for info in registry.plugins():
        owner = f"{info.distribution} {info.version}"
        methods = [provided.removeprefix("method ") for provided in info.provides if provided.startswith("method ")]
        taken |= dict.fromkeys((info.name.replace("-", "_"), *methods), owner)
    if find_spec(f"adapterkit_{name}"):
        taken.setdefault(name, f"whoever brings the module adapterkit_{name}")
    if name in taken:
        numbered = (f"{name}_{number}" for number in range(2, len(taken) + 3))
        free = next(one for one in (f"my_{name}", *numbered) if one not in taken)
        raise ConfigError("NAME does not fit", [f"{name!r} is installed already, by {taken[name]}; try {free!r}"])


def _write(folder: Path, words: Mapping[str, str]) -> None:
    """The whole package, or nothing of it.

    Raises:
        ConfigError: There is something at ``folder`` already.
        AdapterkitError: It cannot be written.
    """
    staging = folder.with_name(f".adapterkit-{secrets.token_hex(8)}")
    try:
        if folder.is_symlink() or (folder.exists() and not _is_empty(folder)):
            raise ConfigError(
                "nothing was written", [f"{str(folder)!r} is there already; move it, or give --directory"]
            )
        staging.mkdir(parents=True)
        for template, path in FILES.items():
            file = staging / Template(path).substitute(words)
            file.parent.mkdir(exist_ok=True)
            file.write_text(Template(_read(template)).substitute(words), encoding="utf-8")
        if folder.exists():
            folder.rmdir()  # which fails if it is not empty any more
        staging.rename(folder)
    except OSError as error:
        raise AdapterkitError(f"the package cannot be written to {str(folder)!r}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _read(template: str) -> str:
    return (resources.files("adapterkit.cli") / "templates" / template).read_text(encoding="utf-8")
