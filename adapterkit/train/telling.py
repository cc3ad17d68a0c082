"""What a run leaves beside its adapter: scores beside the base, an audit of the data, rows that were left out, a report."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from adapterkit.audit import audit
from adapterkit.contracts import Text
from adapterkit.data.reports import list_unusable
from adapterkit.evaluation import evaluate
from adapterkit.report import write_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from adapterkit.adapter import Adapter
    from adapterkit.data.dataset import Encoded
    from adapterkit.evaluation import Evaluation

    from .preparing import Prepared

__all__ = ["tell", "tell_again"]

logger = logging.getLogger("adapterkit")

MOST_AUDITED = 50_000
"""Beyond so many rows an audit takes minutes: it is then for ``adapterkit audit``, when somebody wants it."""


def tell(one: Prepared, adapter: Adapter, folder: Path) -> Evaluation | None:
    """Write everything; the adapter is on the disk already, and whatever goes wrong here is said and costs no more than this.

    Returns:
        The scores, where there are any.
    """
    list_unusable(folder / "unusable.jsonl", one.rows.reports)
    if not one.asked.report:
        return None
    job, result = one.job.options, None
    try:
        scored = one.rows.held_out is not None and one.asked.report_rows
        if scored and one.training.processes.lockstep:
            logger.warning("the base is in pieces, so the report has no scores: `adapterkit evaluate` makes them")
        elif one.rows.held_out is not None and scored:
            result = evaluate(one.base, _some(one.rows.held_out, one.asked.report_rows), adapter=adapter)
            _write(folder / "evaluation.json", _said(result, one.rows.held_out))
        if one.rows.rows.report.rows <= MOST_AUDITED:
            about = {name: job[name] for name in ("columns", "format", "eval_data") if job.get(name) is not None}
            found = audit(one.base, one.job.data, max_length=one.training.options.max_length, **about)
            _write(folder / "audit.json", found.to_json())
    except Exception:
        logger.exception("the adapter is saved; scores or audit for its report could not be made")
    tell_again(folder)
    return result


def tell_again(folder: Path) -> None:
    """Write the report of whatever is in a run's folder."""
    try:
        write_report(folder)
    except Exception:
        logger.exception("the report of %s could not be written; try `adapterkit report %s`", folder, folder)


def _said(result: Evaluation, rows: Encoded) -> dict[str, Any]:
    raw = all(isinstance(record, Text) for record in rows.records)
    return {**result.to_json(), "held_out_rows": len(rows.examples), "examples": [] if raw else result.examples()}


def _some(rows: Encoded, most: int) -> Encoded:
    """At most so many of the rows, spread over them."""
    count = len(rows.examples)
    if count <= most:
        return rows
    numbers = np.linspace(0, count - 1, most).round().astype(np.int64)
    return attrs.evolve(rows, examples=rows.examples.pick(numbers), records=rows.records.pick(numbers))


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
