"""What ``--adapter`` may say: a path, a reference of the store, an address, or several of them with weights."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapterkit.compose import named_parts, parse
from adapterkit.errors import ConfigError, SelectionError, suggest
from adapterkit.publishing import find as find_acting
from adapterkit.publishing import is_named

if TYPE_CHECKING:
    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.registry import Registry

__all__ = ["ActingText", "check_acting", "open_acting", "read_acting"]

ActingText = Annotated[
    str | None,
    Parameter(
        help="An adapter's folder, a blend's file, cards@3 of the store, hf://org/cards@v1, or several: "
        "out/cards*0.7+out/tone*0.3; the base alone without it."
    ),
]


def open_acting(base: Base, text: str | None) -> Acting | None:
    """The adapters that a text on the command line means, resident on ``base``; None for None.

    Args:
        base: What they are to act on.
        text: The folder of an adapter, the file of a blend, a reference of the store or an address; or several with a plus between
            them, each with a weight behind a star where it is not 1. A text that is a path as a whole is that path, whatever its
            name holds.

    Raises:
        ConfigError: A path is not there, or a weight is no number.
        ArtifactError: What lies there is refused.
        SelectionError: The adapters cannot act at once.
    """
    if text is None:
        return None
    check_acting(text)
    return base.load(text if _is_there(text) else parse(text, base.load))


def read_acting(registry: Registry, text: str, option: str = "ADAPTER") -> Acting:
    """The same for what needs no base in memory; raises as :func:`open_acting` does."""
    check_acting(text, option)
    find = functools.partial(find_acting, registry=registry)
    return find(text) if _is_there(text) else parse(text, find)


def check_acting(text: str, option: str = "--adapter") -> None:
    """Look for paths and weights, so that no model is loaded for what cannot be.

    Raises:
        ConfigError: A path is not there, or a weight is no number: it is the command that is wrong, not the adapter.
    """
    if _is_there(text):
        return
    try:
        names = [name for name, _ in named_parts(text)]
    except SelectionError as error:
        raise ConfigError(f"{option} does not fit", [str(error)]) from None
    missing = [_missing(Path(name)) for name in dict.fromkeys(names) if not is_named(name)]
    if missing:
        raise ConfigError(f"{option} does not fit", missing)


def _is_there(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path("") is the current folder, and a long text raises


def _missing(path: Path) -> str:
    """Why there is no adapter at ``path``, and what there is instead."""
    folder = path.parent
    if not folder.is_dir():
        return f"no adapter {str(path)!r}: there is no folder {str(folder)!r}"
    nearby = [str(folder / one.name) for one in sorted(folder.iterdir())]
    return f"no adapter {str(path)!r}{suggest(str(path), nearby)}"
