"""The libraries that some checks need, and what to do where they are not installed."""

from __future__ import annotations

import importlib
from typing import Any

from .findings import Finding

__all__ = ["MissingLibraryError", "need", "not_checked"]


class MissingLibraryError(ImportError):
    """A library of the extra ``adapterkit[audit]`` is not installed."""


def need(module: str) -> Any:
    """The module of a library that comes with the extra.

    Raises:
        MissingLibraryError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingLibraryError((error.name or module).partition(".")[0]) from error


def not_checked(what: str, error: MissingLibraryError) -> Finding:
    """Says that a check was not made: an audit that leaves something out must not look clean."""
    return Finding(
        name="not-checked",
        severity="warning",
        count=0,
        explanation=f"Left out: {what}, as {error} is not installed: pip install 'adapterkit[audit]'.",
    )
