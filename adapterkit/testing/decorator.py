"""The pytest front: one test for each check."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .checks import CHECKS
from .comparing import one_thread
from .outcomes import DoesNotApply
from .running import check_names
from .subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["conformance"]


def conformance(
    name: str,
    *,
    plugin: Any = None,
    options: Mapping[str, Any] | None = None,
    expected: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test function with an argument ``check`` into one test for each check.

    Args:
        name: The method's name.
        plugin: Where it comes from when it is not installed: a Python file, a module, an object with marked functions, or a
            list of these.
        options: The method's options, where it needs some or others are to be checked.
        expected: Reasons by the names of checks that are known to fail; one of these that passes is a failure.

    Raises:
        UnknownNameError: ``expected`` names a check that does not exist.

    Example::

        @conformance("ia3")
        def test_method(check):
            check()
    """
    import pytest

    known = dict(expected or {})
    check_names(known)
    subject = functools.cache(lambda: Subject(name, plugin=plugin, options=options))
    parameters = [
        pytest.param(
            functools.partial(_check, check, subject),
            id=check,
            marks=[pytest.mark.xfail(reason=known[check], strict=True)] if check in known else [],
        )
        for check in CHECKS
    ]
    return pytest.mark.parametrize("check", parameters)


def _check(check: str, subject: Callable[[], Subject]) -> None:
    import pytest

    try:
        with one_thread():
            CHECKS[check].function(subject())
    except DoesNotApply as reason:
        pytest.skip(str(reason))
