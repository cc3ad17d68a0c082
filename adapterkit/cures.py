"""What to do about a plugin that cannot be loaded, said beside the reason."""

from __future__ import annotations

import importlib.util
import re
import traceback
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pluggy

__all__ = ["explain", "for_missing"]

OWN = "adapterkit"
_NAME = re.compile(r"[\w.-]+")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")
_BETWEEN = ("<frozen", *(str(Path(module).parent) for module in (__file__, pluggy.__file__, importlib.__file__)))
"""Where the files between a plugin and whoever asked for it are; what is raised there is not the plugin's own line."""


def explain(error: BaseException, distribution: str = "") -> str:
    """The error, the line of the plugin where it was raised, and what would cure it.

    Args:
        error: What importing the plugin raised.
        distribution: The distribution that brings the plugin; empty for a file or an object.
    """
    said = f"{type(error).__name__}: {error}{_line(error)}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{said}; {for_missing(error.name, distribution)}"
    return f"{said}; try `pip install --upgrade {distribution}`, or ask its author" if distribution else said


def _line(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or frames[-1].filename.startswith(_BETWEEN):
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def for_missing(module: str, distribution: str = "") -> str:
    """What brings a module that cannot be imported; ``distribution`` is that of the plugin that wants it."""
    top = module.partition(".")[0]
    if top != module and importlib.util.find_spec(top) is not None:
        return f"{top} is installed, in a version that does not have it: try `pip install --upgrade {top}`"
    for owner in filter(None, (distribution, OWN)):
        extra = _extra(top, owner)
        if extra:
            return f"try `pip install '{owner}[{extra}]'`"
    return f"try `pip install {top}`"


def _extra(name: str, distribution: str) -> str:
    """The extra of ``distribution`` that brings ``name`` and as little else as can be; empty when none does."""
    brought: dict[str, set[str]] = defaultdict(set)
    try:
        requirements = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:
        return ""
    for requirement in requirements:
        for extra in _EXTRA.findall(requirement):
            brought[extra].update(_NAME.findall(requirement)[:1])
    fitting = [extra for extra, names in brought.items() if _plain(name) in map(_plain, names)]
    return min(fitting, key=lambda extra: (len(brought[extra]), extra), default="")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
