"""``adapterkit report``: the report of a run, or several runs compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from adapterkit.errors import ConfigError
from adapterkit.report import compare_runs, explain_no_run, read_run, summarise, write_report

__all__ = ["report"]

COMPARISON = Path("comparison.html")


def report(
    runs: Annotated[tuple[Path, ...], Parameter(help="The folder of a run: the --output of train.", negative="")],
    *,
    output: Annotated[
        Path | None,
        Parameter(
            help="Where the page is written. [default: RUN/report.html for one run, comparison.html for several]",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        Parameter(
            help="The order of several runs: started, name, seconds, forgetting or a score. [default: started]",
            show_default=False,
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None, Parameter(help="What an hour of the machine costs, to say what the run cost.")
    ] = None,
    as_json: Annotated[
        bool,
        Parameter(
            name="--json",
            help="Print the figures as JSON; several runs then have a page only with --output.",
            negative="",
        ),
    ] = False,
) -> None:
    """Write the report of a run, or a page that compares several, and print its path."""
    _check(runs, sort, price_per_hour)
    if len(runs) == 1:
        path = write_report(runs[0], path=output, price_per_hour=price_per_hour)
        told = summarise(read_run(runs[0]), price_per_hour)
        print(json.dumps({"report": str(path), "run": told.to_json()}, indent=2) if as_json else path)
        return
    comparison = compare_runs(runs, sort=sort or "started", price_per_hour=price_per_hour)
    page = output if as_json or output else COMPARISON
    if page:
        comparison.to_html(page)
    print(json.dumps(comparison.to_json(), indent=2) if as_json else page)


def _check(runs: tuple[Path, ...], sort: str | None, price_per_hour: float | None) -> None:
    """Refuse what no page can be made of before any is written.

    Raises:
        ConfigError: With all that is wrong.
    """
    problems = [problem for problem in map(explain_no_run, runs) if problem]
    if not runs:
        problems.append("RUN: is required")
    if sort is not None and len(runs) == 1:
        problems.append("--sort: is for several runs, and there is one")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        problems.append(f"--price-per-hour: must be 0 or more, not {price_per_hour}")
    if problems:
        raise ConfigError("the command does not fit", problems)
