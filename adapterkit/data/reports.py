"""What became of rows: counted, said and written down; none is passed over in silence."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Report", "Unusable", "by_reason", "list_unusable", "say_what_was_lost"]

logger = logging.getLogger("adapterkit")
MOST_SHOWN = 10


@attrs.frozen
class Unusable:
    """A row that was left out: where it is and why."""

    where: str
    reason: str


@attrs.frozen
class Report:
    """What became of the rows.

    Attributes:
        rows: How many were read.
        tokens: In all examples together.
        trained_tokens: Those that count in the loss, by their weights.
        truncated_rows: How many were longer than ``max_length``.
        truncated_tokens: How many tokens these lost.
        unusable: The rows that were left out.
    """

    rows: int
    tokens: int
    trained_tokens: float
    truncated_rows: int
    truncated_tokens: int
    unusable: tuple[Unusable, ...] = ()


def say_what_was_lost(report: Report, name: str = "data") -> None:
    """Log a warning for rows that were cut to ``max_length``, and for those that were left out: the first ten, then by reason.

    ``name`` is the option that the rows came by.
    """
    of = "" if name == "data" else f" of {name}"
    if report.truncated_rows:
        logger.warning(
            "%d of %d rows%s were cut to max_length and lost %d tokens",
            report.truncated_rows,
            report.rows,
            of,
            report.truncated_tokens,
        )
    for row in report.unusable[:MOST_SHOWN]:
        logger.warning("%s%s is left out: %s", row.where, of, row.reason)
    if len(report.unusable) > MOST_SHOWN:
        logger.warning("%d more rows%s are left out", len(report.unusable) - MOST_SHOWN, of)
        for reason, count in by_reason(report).items():
            logger.warning("%d rows%s in all: %s", count, of, reason)


def by_reason(report: Report) -> dict[str, int]:
    """How many rows were left out for each reason, the commonest first; numbers and quoted parts of it are not told apart."""
    reasons = (re.sub(r"'[^']*'|\d+", "…", row.reason) for row in report.unusable)
    return dict(Counter(reasons).most_common())


def list_unusable(path: Path, reports: Mapping[str, Report]) -> None:
    """Write each row that was left out as a line of JSON: ``{"data": …, "where": …, "reason": …}``.

    Nothing is written where none was, and a list of an earlier run is taken away.

    Args:
        path: The file, such as ``output/unusable.jsonl``; its folder is there.
        reports: By the option that the rows came by: ``data``, ``eval_data``, ``replay``.
    """
    rows = [(name, row) for name, report in reports.items() for row in report.unusable]
    if not rows:
        path.unlink(missing_ok=True)
        return
    with path.open("w", encoding="utf-8") as file:
        for name, row in rows:
            line = {"data": name, "where": row.where, "reason": row.reason}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
