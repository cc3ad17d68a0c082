"""The checks, in the order in which they are run: each a function whose docstring says what it promises and why it matters."""

from __future__ import annotations

import inspect
from collections.abc import Callable  # noqa: TC003 - attrs and readers of annotations need the name
from typing import TYPE_CHECKING

import attrs

from . import algebra, answers, bases, effects, files, options, peft, training, untouched

if TYPE_CHECKING:
    from types import ModuleType

    from adapterkit.testing.subject import Subject

__all__ = ["CHECKS", "Check"]


@attrs.frozen(eq=False)
class Check:
    """One check.

    Attributes:
        name: How it is called in results and in ``expected``.
        promise: What it promises, and why it matters.
        function: Raises when the promise is broken, :class:`~adapterkit.testing.DoesNotApply` when there is none.
    """

    name: str
    promise: str
    function: Callable[[Subject], None]


def _line(group: ModuleType, name: str) -> int:
    """Where a check is written: the order there is that in which they are run."""
    return int(getattr(group, name).__code__.co_firstlineno)


CHECKS = {
    name: Check(name, inspect.cleandoc(getattr(group, name).__doc__), getattr(group, name))
    for group in (options, untouched, training, files, effects, algebra, answers, bases, peft)
    for name in sorted(group.__all__, key=lambda name: _line(group, name))
}
"""Every check by name."""
