"""Charts as plain values: paths, ticks and words; the templates draw them as SVG.

A path is given in thousandths of the chart's width and height and stretched to them by the browser; everything else is placed
in percent. So one drawing fits a phone and a wide screen, its letters and lines are as large on both, and no script is needed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from .numbers import count, number
from .scales import make_scale
from .series import smooth, thin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scales import Scale
    from .series import Points, Series

__all__ = ["Chart", "Line", "Mark", "draw", "with_smoothing"]

UNITS = 1000
BUCKETS, FEWEST_BUCKETS = 800, 60
"""Parts of the steps of all curves of a chart together, and at least of each; a part keeps its least and greatest value."""
DOTS = 25
"""A line of so few values shows each as a dot."""
ROWS = 40
"""Rows of the table below a chart."""


@attrs.frozen(kw_only=True)
class Line:
    """A curve to draw.

    Attributes:
        name: What it is called in the legend.
        points: ``(step, value)``.
        color: The number of its colour, which is also its pattern of dashes.
        faint: Whether it stands behind others, such as raw values behind smoothed ones.
    """

    name: str
    points: Points
    color: int = 0
    faint: bool = False


@attrs.frozen
class Mark:
    """A vertical line: a step with a name."""

    step: int
    name: str


@attrs.frozen(kw_only=True)
class Drawn:
    """A curve as it is drawn: ``path`` in thousandths, ``dots`` as percentages."""

    name: str
    color: int
    faint: bool
    path: str
    dots: tuple[tuple[str, str], ...]
    last: str


@attrs.frozen(kw_only=True)
class Chart:
    """All that a template needs.

    Attributes:
        key: What it is called within the page.
        title: What is drawn.
        unit: In what.
        about: One sentence for those who cannot see it.
        lines: The curves.
        x: Places and labels of ticks, in percent; ``y`` alike, from the top.
        marks: Places and names of steps.
        values: JSON for the script that shows values under the pointer.
        table: Names of columns, and rows of a step and its values.
        shortened: Whether the table leaves steps out.
        small: Whether it takes a part of the page's width.
    """

    key: str
    title: str
    unit: str
    about: str
    lines: tuple[Drawn, ...]
    x: tuple[tuple[str, str], ...]
    y: tuple[tuple[str, str], ...]
    marks: tuple[tuple[str, str, str], ...]
    values: str
    table: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
    shortened: bool
    small: bool


def draw(
    key: str,
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    small: bool = False,
    linear: bool = False,
    until: int = 0,
) -> Chart | None:
    """A chart of curves over the optimizer steps, at least up to ``until``; None when there is nothing to draw."""
    buckets = max(FEWEST_BUCKETS, BUCKETS // max(1, len(lines)))
    lines = [attrs.evolve(line, points=thin(line.points, buckets)) for line in lines if line.points]
    if not lines:
        return None
    steps = [until, *(step for line in lines for step, _ in line.points)]
    ticks = 4 if small else 6
    across = make_scale([min(0, *steps), max(steps)], ticks, steps=True)
    up = make_scale([value for line in lines for _, value in line.points], ticks, linear=linear)
    table, shortened = _table(lines)
    return Chart(
        key=key,
        title=title,
        unit=", ".join(word for word in (unit, "logarithmic" if up.logarithmic else "", "by step") if word),
        about=" ".join(_said(line) for line in lines if not line.faint),
        lines=tuple(_drawn(line, across, up) for line in lines),
        x=tuple((_percent(across.place(value)), label) for value, label in across.ticks),
        y=tuple((_percent(1 - up.place(value)), label) for value, label in up.ticks),
        marks=tuple(_mark(mark, across) for mark in marks if across.low <= mark.step <= across.high),
        values=_values(lines, across, up),
        table=table,
        shortened=shortened,
        small=small,
    )


def with_smoothing(name: str, curve: Series, color: int = 0) -> list[Line]:
    """A curve of single batches, behind its smoothed form where there are enough records."""
    smoothed = smooth(curve.points)
    if not smoothed:
        return [Line(name=name, points=curve.points, color=color)]
    return [
        Line(name=f"{name}, each record", points=curve.points, color=color, faint=True),
        Line(name=f"{name}, smoothed", points=smoothed, color=color),
    ]


def _drawn(line: Line, across: Scale, up: Scale) -> Drawn:
    places = [(across.place(step), 1 - up.place(value)) for step, value in line.points]
    path = "M" + "L".join(f"{x * UNITS:.1f} {y * UNITS:.1f}" for x, y in places)
    dots = tuple((_percent(x), _percent(y)) for x, y in places) if len(places) <= DOTS and not line.faint else ()
    last = number(line.points[-1][1])
    return Drawn(name=line.name, color=line.color, faint=line.faint, path=path, dots=dots, last=last)


def _mark(mark: Mark, across: Scale) -> tuple[str, str, str]:
    place = across.place(mark.step)
    return _percent(place), mark.name, "end" if place > 0.5 else "start"


def _values(lines: Sequence[Line], across: Scale, up: Scale) -> str:
    """What the script needs: the ends of both axes, and each line's values to five digits."""
    shown = [line for line in lines if not (line.faint and len(lines) > 3)]
    return json.dumps(
        {
            "x": [across.low, across.high],
            "y": [up.low, up.high, up.logarithmic],
            "lines": [
                {"name": line.name, "color": line.color, "points": [[s, float(f"{v:.5g}")] for s, v in line.points]}
                for line in shown
            ],
        },
        separators=(",", ":"),
    )


def _said(line: Line) -> str:
    (first, before), (last, after) = line.points[0], line.points[-1]
    if first == last:
        return f"{line.name}: {number(before)} at step {count(first)}."
    least = min(value for _, value in line.points)
    return f"{line.name}: {number(before)} at step {count(first)}, {number(after)} at step {count(last)}, least {number(least)}."


def _table(lines: Sequence[Line]) -> tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], bool]:
    columns = [dict(line.points) for line in lines]
    steps = sorted({step for column in columns for step in column})
    kept = _spread(steps, {step for column in columns if len(column) <= DOTS for step in column})
    rows = tuple(
        (count(step), *(number(column[step]) if step in column else "" for column in columns)) for step in kept
    )
    return (("step", *(line.name for line in lines)), rows), len(kept) < len(steps)


def _spread(steps: list[int], wanted: set[int]) -> list[int]:
    """Some of the steps, evenly, with those that are wanted where they are not too many."""
    if len(steps) <= ROWS:
        return steps
    room = max(ROWS - len(wanted), ROWS // 2)
    even = {steps[round(index * (len(steps) - 1) / (room - 1))] for index in range(room)}
    return sorted(even | (wanted if len(wanted) <= ROWS else set()))


def _percent(part: float) -> str:
    return f"{100 * part:.2f}".rstrip("0").rstrip(".") + "%"
