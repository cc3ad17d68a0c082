"""Says which rows were cut or left out: never passed over in silence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapterkit.data.dataset import Report

__all__ = ["say_what_was_lost"]

logger = logging.getLogger("adapterkit")
MOST_SHOWN = 10


def say_what_was_lost(report: Report) -> None:
    """Log a warning for rows that were cut to ``max_length``, and one for each row that was left out."""
    if report.truncated_rows:
        logger.warning(
            "%d of %d rows were cut to max_length and lost %d tokens",
            report.truncated_rows,
            report.rows,
            report.truncated_tokens,
        )
    for row in report.unusable[:MOST_SHOWN]:
        logger.warning("%s is left out: %s", row.where, row.reason)
    if len(report.unusable) > MOST_SHOWN:
        logger.warning("%d more rows are left out", len(report.unusable) - MOST_SHOWN)
