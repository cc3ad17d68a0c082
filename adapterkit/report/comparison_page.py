"""The comparison of several runs as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .charts import Line, draw
from .curves import perplexity
from .facts import settings
from .numbers import change, count, duration, memory, moment, money
from .rendering import render
from .scores import headline
from .series import series, smooth
from .spans import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .charts import Chart
    from .comparing import ComparedRun, RunComparison
    from .scores import Score
    from .series import Series
    from .spans import Span

__all__ = ["comparison_page"]

NUMERIC = ("steps", "time", "tokens", "peak memory", "trained", "money")


@attrs.frozen(kw_only=True)
class ScoreRow:
    """A run's score beside the others'."""

    run: ComparedRun
    score: Score | None
    span: Span | None
    base: Span | None
    tag: str


def comparison_page(comparison: RunComparison) -> str:
    """One self-contained HTML file."""
    runs = comparison.runs
    told = headline([score for run in runs for score in run.scores.values()])
    shown = [
        _written({name: values[place] for name, values in comparison.differences.items()}) for place in range(len(runs))
    ]
    return render(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        runs=runs,
        telling=told.name if told else None,
        best=comparison.best,
        facts=[tuple(_facts(run)) for run in runs],
        names=tuple(name for name, _ in _facts(runs[0])),
        differences=shown,
        charts=_charts(runs),
        scores=tuple(_scores(comparison)),
        notes=tuple(_notes(comparison)),
        numeric=NUMERIC,
        forgotten=[_forgotten(run) for run in runs],
        with_cost=any(run.cost is not None for run in runs),
    )


def _facts(run: ComparedRun) -> Iterator[tuple[str, str]]:
    told = run.folder.run
    yield "method", told.method
    yield "base", str(told.base.get("name") or "–")
    yield "status", told.status
    yield "steps", count(told.last_step)
    yield "time", duration(told.seconds)
    yield "tokens", count(told.tokens)
    yield "peak memory", memory(told.peak_memory)
    yield "trained", count(told.parameters)
    yield "money", money(run.cost)
    yield "started", moment(told.started)


def _charts(runs: tuple[ComparedRun, ...]) -> tuple[Chart, ...]:
    held_out, training, general = [], [], []
    for run in runs:
        log = run.folder.log
        loss = series(log, "loss")
        held_out.append(_line(run, series(log, "eval_loss")))
        training.append(_line(run, attrs.evolve(loss, points=smooth(loss.points) or loss.points)))
        general.append(_line(run, perplexity(series(log, "general_loss"))))
    drawn = [
        draw("held-out", "Loss on held-out rows", "nats per token", held_out),
        draw("training", "Training loss, smoothed", "nats per token", training),
        draw("general", "Perplexity of general text", "per token", general),
    ]
    return tuple(chart for chart in drawn if chart is not None)


def _line(run: ComparedRun, curve: Series) -> Line:
    return Line(name=run.name, points=curve.points, color=run.color)


def _scores(comparison: RunComparison) -> Iterator[tuple[str, tuple[ScoreRow, ...]]]:
    runs = comparison.runs
    for name in dict.fromkeys(name for run in runs for name in run.scores):
        scores = [run.scores.get(name) for run in runs]
        measured = [(one.value, one.interval) if one else (None, None) for one in scores]
        bases = [(one.base, one.base_interval) if one else (None, None) for one in scores]
        spans = place(name, [*measured, *bases])
        best = comparison.best.get(name, ())
        yield (
            name,
            tuple(
                ScoreRow(
                    run=run,
                    score=score,
                    span=spans[number],
                    base=spans[number + len(runs)],
                    tag=_tag(run, score, best, comparison),
                )
                for number, (run, score) in enumerate(zip(runs, scores, strict=True))
            ),
        )


def _tag(run: ComparedRun, score: Score | None, best: tuple[str, ...], comparison: RunComparison) -> str:
    """``best``; ``not clearly worse`` for a run whose interval touches that of the best one; else nothing."""
    if score is None or not best:
        return ""
    if run.name in best:
        return "best"
    top = next(one for one in comparison.runs if one.name == best[0]).scores[score.name]
    if score.interval is None or top.interval is None:
        return ""
    apart = score.interval[1] < top.interval[0] or top.interval[1] < score.interval[0]
    return "" if apart else "not clearly worse"


def _notes(comparison: RunComparison) -> Iterator[str]:
    scored = [run for run in comparison.runs if run.scores]
    without = [run.name for run in comparison.runs if not run.scores]
    if without:
        yield f"Without scores: {', '.join(without)}; they held out no rows (eval_data, eval_split) or did not end."
    if len({run.held_out for run in scored}) > 1:
        yield "The runs were scored on different held-out rows, so no score is marked as the best: give all the same eval_data."


def _written(values: Mapping[str, Any]) -> dict[str, str]:
    shown = zip(values.values(), settings(values), strict=True)
    return {name: "–" if value is None else text for value, (name, text) in shown}


def _forgotten(run: ComparedRun) -> str:
    return change(run.forgetting.before, run.forgetting.after) if run.forgetting else "–"
