"""The checks, in the order in which they are run: each a function whose docstring says what it promises and why it matters."""

from __future__ import annotations

import inspect
from collections.abc import Callable  # noqa: TC003 - attrs and readers of annotations need the name
from typing import TYPE_CHECKING

import attrs

from . import answers, bases, effects, files, options, peft, training, untouched

if TYPE_CHECKING:
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


CHECKS = {
    name: Check(name, inspect.cleandoc(getattr(group, name).__doc__), getattr(group, name))
    for group in (options, untouched, training, files, effects, answers, bases, peft)
    for name in group.__all__
}
"""Every check by name."""
