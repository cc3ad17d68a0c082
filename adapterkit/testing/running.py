"""Runs the checks, and says what became of each."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit.errors import UnknownNameError
from adapterkit.train.options import split_options

from .checks import CHECKS
from .comparing import one_thread
from .outcomes import CheckFailed, DoesNotApply, Result
from .subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .checks import Check

__all__ = ["check_names", "one", "run"]


def run(
    name: str,
    *,
    plugin: Any = None,
    options: Mapping[str, Any] | None = None,
    expected: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Result]:
    """Hold a method to its contract.

    Args:
        name: The method's name.
        plugin: Where it comes from when it is not installed: a Python file, a module, an object with marked functions, or a
            list of these.
        options: The method's options, where it needs some or others are to be checked.
        expected: Reasons by the names of checks that are known to fail; one of these that passes is a failure.
        only: The names of the checks to run; all by default.
        progress: Is called with the name of each check before it runs.

    Returns:
        One result for each check, in order.

    Raises:
        UnknownNameError: There is no such method or check.
        BrokenPluginError: The plugin cannot be loaded.
        ConfigError: ``options`` that the method does not take, or that it needs and are not there.
    """
    chosen = check_names(only) if only is not None else tuple(CHECKS)
    known = dict(expected or {})
    check_names(known)
    subject = Subject(name, plugin=plugin, options=options)
    if subject.options:
        split_options(subject.method, subject.options)
    subject.config(subject.base(plain=True))  # what is refused by name here would be so in every check
    results = []
    for check in chosen:
        if progress is not None:
            progress(check)
        results.append(one(CHECKS[check], subject, known.get(check)))
    return results


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The same names.

    Raises:
        UnknownNameError: A check of that name does not exist.
    """
    chosen = tuple(names)
    for name in chosen:
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS)
    return chosen


def one(check: Check, subject: Subject, expected: str | None = None) -> Result:
    """Run one check; with ``expected``, the reason why it is known to fail."""
    started = time.perf_counter()
    outcome, reason = _outcome(check, subject)
    if expected is not None and outcome == "failed":
        outcome, reason = "failed as expected", expected
    elif expected is not None:
        outcome, reason = "failed", f"it was expected to fail ({expected}), and {outcome}: take it out of `expected`"
    return Result(check.name, outcome, reason, check.promise, time.perf_counter() - started)  # type: ignore[arg-type]


def _outcome(check: Check, subject: Subject) -> tuple[str, str]:
    try:
        with one_thread():
            check.function(subject)
    except DoesNotApply as reason:
        return "does not apply", str(reason)
    except CheckFailed as failure:
        return "failed", str(failure)
    except Exception as error:  # noqa: BLE001 - a method may raise anything
        return "failed", f"{type(error).__name__}: {error} (raised in {_where(error)}){_cure(error)}"
    return "passed", ""


def _cure(error: Exception) -> str:
    """What mostly helps where a layer computes in two dtypes."""
    if "same dtype" not in str(error):
        return ""
    if " Long" in str(error):
        return ". An embedding's x is token ids: leave embeddings out by `kinds`"
    return ". Bring the layer's tensors to the dtype of x"


def _where(error: Exception) -> str:
    """The innermost line that is neither torch's nor another library's: as a rule the method's own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}, {own[-1].name}"
