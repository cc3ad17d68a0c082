"""Errors with options as they are written on the command line."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from adapterkit.errors import AdapterkitError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_flags"]


@contextlib.contextmanager
def as_flags(*options: str) -> Iterator[None]:
    """Name options in errors as flags: ``min_survived=0`` is ``--min-survived 0``, ``ignore_rest=True`` is ``--ignore-rest``.

    Args:
        options: Their names in Python.
    """
    try:
        yield
    except AdapterkitError as error:
        error.args = (_written(str(error), options),)
        raise


def _written(message: str, options: tuple[str, ...]) -> str:
    for name in options:
        flag = f"--{name.replace('_', '-')}"
        message = re.sub(rf"\b{name}=True\b", flag, message)
        message = re.sub(rf"\b{name}='?([^\s',:;]+)'?", rf"{flag} \1", message)
        message = re.sub(rf"(?m)^(\s*- )?{name}(?=: | ')", rf"\1{flag}", message)
        if "_" in name:  # other names are words as well
            message = re.sub(rf"(?<![-\w]){name}\b", flag, message)
    return message
