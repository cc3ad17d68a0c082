"""The report of a run, and the comparison of several: one HTML file each, from what runs left in their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .comparing import RunComparison, compare_runs, summarise
from .page import run_page
from .reading import explain_no_run, read_run
from .verdicts import measured_forgetting, result
from .writing import write_page

if TYPE_CHECKING:
    import os

__all__ = ["RunComparison", "compare_runs", "explain_no_run", "in_short", "read_run", "summarise", "write_report"]

REPORT = "report.html"


def write_report(
    folder: str | os.PathLike[str],
    *,
    path: str | os.PathLike[str] | None = None,
    price_per_hour: float | None = None,
) -> Path:
    """Write the report of the run in ``folder``: one HTML file that fetches nothing, for a run in any state.

    Args:
        folder: The run's folder, the ``output`` of training.
        path: Where to; by default ``report.html`` in the run's folder.
        price_per_hour: What an hour of the machine costs, in any currency; the run's cost is then said in it.

    Returns:
        The path that was written.

    Raises:
        RunError: The folder is no run's, a file in it cannot be read, or the report cannot be written; an earlier report is
            then as it was.
    """
    text = run_page(read_run(folder), price_per_hour)
    return write_page(Path(folder) / REPORT if path is None else Path(path), text)


def in_short(folder: str | os.PathLike[str]) -> str:
    """How the run in ``folder`` turned out, in a line or two: the gain, what was forgotten, and where the report is.

    Raises:
        RunError: The folder is no run's, or a file in it cannot be read.
    """
    run = read_run(folder)
    forgotten = measured_forgetting(run)
    rise = "" if forgotten is None else f" Perplexity of general text: {forgotten.rise:+.1%}."
    return f"{result(run)}{rise}\nreport: {Path(folder) / REPORT}"
