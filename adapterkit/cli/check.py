"""``adapterkit check``: holds a method to its contract."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from adapterkit.errors import ConfigError, PluginError
from adapterkit.testing import CHECKS, run

from .plugins import PluginFiles  # noqa: TC001 - cyclopts reads the annotation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from adapterkit.testing import Result

__all__ = ["check"]

WIDTH = 100
INDENT = " " * 4
CLEAR = "\r\033[K"


def check(
    name: Annotated[str, Parameter(help="The method's name.")],
    *,
    option: Annotated[
        tuple[str, ...],
        Parameter(
            help="An option to check the method with, as in rank=4; may be given again.",
            negative="",
            show_default=False,
        ),
    ] = (),
    only: Annotated[
        tuple[str, ...],
        Parameter(help="A check to run, all others left out; may be given again.", negative="", show_default=False),
    ] = (),
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),
) -> None:
    """Hold a method to its contract, on tiny models that are built in memory.

    Each check passes, fails with the reason, or does not apply with the reason. The exit code is 1 when one fails.
    """
    options = dict(map(_option, option))
    with _progress() as progress:
        results = run(name, plugin=plugin, options=options, only=only or None, progress=progress)
    if as_json:
        print(json.dumps([attrs.asdict(result) for result in results], indent=2))
    else:
        _print(results)
    failed = sum(result.outcome == "failed" for result in results)
    if failed:
        raise PluginError(f"method {name!r} fails {failed} of {len(results)} checks")


def _option(text: str) -> tuple[str, Any]:
    """An option's name and value; what is no JSON is a text.

    Raises:
        ConfigError: There is no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError("--option does not fit", [f"{text!r} is not NAME=VALUE"])
    try:
        return name.strip().replace("-", "_"), json.loads(value)
    except json.JSONDecodeError:
        return name.strip().replace("-", "_"), value


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Says which check is under way, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    done = 0

    def say(name: str) -> None:
        nonlocal done
        done += 1
        print(f"{CLEAR}{done}/{len(CHECKS)} {name}", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        print(CLEAR, end="", file=sys.stderr, flush=True)


def _print(results: Iterable[Result]) -> None:
    for result in results:
        print(f"{result.outcome:16}{result.check}")
        if result.reason:
            print(textwrap.fill(result.reason, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT))
    counts = Counter(result.outcome for result in results)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
