"""The report of one run as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.errors import DataError, RunError

from .curves import charts, missing_curves
from .details import matrices, tables
from .examples import grouped
from .facts import data_rows, loading, notes_on_data, provenance, settings, unusable
from .numbers import capital, count, duration, moment
from .reading import AUDIT
from .rendering import render
from .scores import all_scores
from .spans import place
from .verdicts import cost, forgetting, gain, result, scored_rows

if TYPE_CHECKING:
    from .reading import RunFolder

__all__ = ["run_page"]

NO_AUDIT = "The data was not audited: a run does that at its end, and adapterkit audit at any time."
OPEN_EXAMPLES = 4
"""Examples of each group that are shown at once."""
STATUS = {
    "running": "This run has not ended",
    "stopped early": "This run was stopped early",
    "interrupted": "This run was interrupted",
    "failed": "This run failed",
}
ON = {
    "running": "It is still going on, or its process was killed. If it was killed, resume=True goes on from its last checkpoint.",
    "stopped early": "",
    "interrupted": "resume=True goes on from its last checkpoint.",
    "failed": "There is no finished adapter. When the cause is gone, resume=True goes on from its last checkpoint.",
}


def run_page(run: RunFolder, price_per_hour: float | None = None) -> str:
    """One self-contained HTML file."""
    groups, left_out = grouped(run.evaluation)
    reasons, more_reasons = unusable(run)
    scores = all_scores(run.evaluation)
    audit = _audit(run)
    return render(
        "run.html",
        inline_styles=audit is not None,
        title=f"{run.name}: training report",
        run=run,
        told=run.run,
        overline=_overline(run),
        status=_status(run),
        result=result(run),
        verdicts=(gain(run), forgetting(run), cost(run, price_per_hour)),
        charts=charts(run),
        missing=tuple(missing_curves(run)),
        scores=scores,
        spans=[place(one.name, ((one.value, one.interval), (one.base, one.base_interval))) for one in scores],
        on=scored_rows(run),
        open_examples=OPEN_EXAMPLES,
        confidence=(run.evaluation or {}).get("confidence"),
        matrices=tuple(matrices(run.evaluation)),
        tables=tuple(tables(run.evaluation)),
        groups=groups,
        left_out=left_out,
        data=data_rows(run),
        data_notes=tuple(notes_on_data(run)) + (() if audit else (NO_AUDIT,)),
        reasons=reasons,
        more_reasons=more_reasons,
        audit=audit,
        provenance=tuple(one for one in provenance(run) if one[1] not in (None, "")),
        options={"run": tuple(settings(run.run.options)), "method": tuple(settings(run.run.config))},
        loading=loading(run),
    )


def _overline(run: RunFolder) -> tuple[str, ...]:
    told = run.run
    rows = (told.data or {}).get("rows")
    words = ("Training report", told.status, moment(told.finished or told.started))
    took = duration(told.seconds) if told.seconds is not None else ""
    trained = f"{count(rows)} rows" if isinstance(rows, int) else ""
    return tuple(word for word in (*words, trained, _steps(run), took) if word not in ("", "–"))


def _steps(run: RunFolder) -> str:
    told = run.run
    if told.last_step is None:
        return ""
    planned = f" of {count(told.steps)}" if told.steps and told.steps != told.last_step else ""
    return f"{count(told.last_step)}{planned} steps"


def _status(run: RunFolder) -> tuple[str, str] | None:
    """What to say first of a run that did not just finish."""
    told = run.run
    if told.status not in STATUS:
        return None
    at = f" after {_steps(run)}" if told.last_step is not None else ""
    kept = f"The adapter of step {count(told.best_step)} was kept." if told.best_step is not None else ""
    reason = f"{capital(told.reason).rstrip('.')}." if told.reason else ""
    return f"{STATUS[told.status]}{at}.", " ".join(word for word in (reason, kept, ON[told.status]) if word)


def _audit(run: RunFolder) -> str | None:
    """The data audit's own part of the page."""
    if run.audit is None:
        return None
    from adapterkit.audit import audit_section

    try:
        return audit_section(run.audit)
    except DataError as error:
        raise RunError(f"{run.path / AUDIT}: {error}") from None
