"""Finds plugins: which are installed, from metadata alone, and those that are files."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import attrs

from .cures import explain
from .errors import BrokenPluginError
from .hooks import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

__all__ = ["Found", "find", "import_file"]


@attrs.frozen
class Found:
    """An entry point of the group ``adapterkit``.

    Attributes:
        name: The entry point's name: the first thing that the plugin provides.
        module: What is imported.
        distribution: The distribution that declares it.
        version: That distribution's version.
        load: Imports the module.
        problem: What metadata alone shows to be wrong; empty when nothing is.
    """

    name: str
    module: str
    distribution: str
    version: str
    load: Callable[[], Any] = attrs.field(repr=False)
    problem: str = ""


def find() -> tuple[Found, ...]:
    """Every installed plugin, once each; imports none of them."""
    seen: dict[tuple[str, str, str], Found] = {}
    for entry in metadata.entry_points(group=GROUP):
        distribution = entry.dist.name if entry.dist else "-"
        version = entry.dist.version if entry.dist else "-"
        one = Found(entry.name, entry.value, distribution, version, entry.load, _problem(entry.value))
        seen.setdefault((entry.name, entry.value, distribution), one)
    return tuple(seen.values())


def _problem(value: str) -> str:
    top = value.partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(top) is None:
        return f"module {top!r} is not installed; reinstall the distribution"
    return ""


def import_file(path: Path) -> ModuleType:
    """The plugin in a Python file.

    Raises:
        BrokenPluginError: There is none, or it cannot be imported.
    """
    if not path.is_file():
        raise BrokenPluginError(f"no plugin file {str(path)!r}")
    name = f"adapterkit_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BrokenPluginError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise BrokenPluginError(f"plugin {str(path)!r} cannot be imported: {explain(error)}") from error
        raise
    return module
