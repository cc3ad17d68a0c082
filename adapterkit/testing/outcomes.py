"""What a check may come to."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["CheckFailed", "DoesNotApply", "Outcome", "Result", "require"]

Outcome = Literal["passed", "failed", "does not apply", "failed as expected"]


class CheckFailed(AssertionError):  # noqa: N818 - a word for a result, as DoesNotApply is
    """The method breaks a promise; the message says what was seen, why it matters and what to do."""


class DoesNotApply(Exception):  # noqa: N818 - it is no error
    """The check has nothing to look at; the message says why."""


@attrs.frozen
class Result:
    """What became of one check.

    Attributes:
        check: The check's name.
        outcome: ``"passed"``, ``"failed"``, ``"does not apply"`` or ``"failed as expected"``.
        reason: Why, in a paragraph; empty when it passed.
        promise: What the check is there for.
        seconds: How long it took.
    """

    check: str
    outcome: Outcome
    reason: str = ""
    promise: str = ""
    seconds: float = attrs.field(default=0.0, eq=False)


def require(condition: object, message: str) -> None:
    """Raise :class:`CheckFailed` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise CheckFailed(message)
