"""An audit for people at a terminal: colours where there is one, plain lines where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .html import title_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from .findings import Audit, Finding, Histogram, Label

__all__ = ["show"]

WIDTH = 100
MOST_LABELS = 10
COLORS = {"serious": "bold red", "warning": "yellow", "info": "blue"}
BLOCKS = " ▁▂▃▄▅▆▇█"


def show(audit: Audit, console: Console | None = None) -> None:
    """Print it to standard output."""
    if console is None:
        console = Console(width=None if Console().is_terminal else WIDTH, highlight=False)
    with console.capture() as captured:
        for part in _parts(audit):
            console.print(part)
    lines = captured.get().splitlines()
    # rich fills lines with spaces, which a file has no use for
    console.file.write("".join(f"{line if console.is_terminal else line.rstrip()}\n" for line in lines))


def _parts(audit: Audit) -> Iterator[RenderableType]:
    held_out = f", {audit.eval_rows:,} evaluation rows of {audit.eval_source}" if audit.eval_rows is not None else ""
    yield Text(f"{audit.rows:,} rows of {audit.source}{held_out}", style="bold")
    for finding in audit.findings:
        yield ""
        yield from _finding(finding)
    found = (audit.memorisation or {}).get("canaries")
    for title, table in (
        ("Labels", _labels(audit.labels) if audit.labels else None),
        ("Lengths", _lengths(audit.lengths) if audit.lengths else None),
        ("Canaries", _canaries(found["each"]) if found else None),
    ):
        if table is not None:
            yield ""
            yield Text(title, style="bold")
            yield table
    yield ""
    yield Text(f"Checked: {', '.join(audit.made)}.", style="dim")


def _finding(finding: Finding) -> Iterator[RenderableType]:
    yield Text.assemble(
        (f"{finding.severity:8} ", COLORS[finding.severity]),
        (title_of(finding.name), "bold"),
        "" if finding.share is None else f"  {finding.count:,} ({finding.share:.1%})",
    )
    yield Padding(Text(finding.explanation), (0, 0, 0, 2))
    if finding.counts:
        kinds = ", ".join(f"{kind}: {count:,}" for kind, count in finding.counts.items())
        yield Padding(Text(kinds), (0, 0, 0, 2))
    for shown in finding.examples:
        place = ", ".join(shown.where)
        said = " | ".join(filter(None, (shown.text, shown.note)))
        yield Padding(Text.assemble((place, "cyan"), "  " if place else "", said), (0, 0, 0, 4))


def _labels(labels: Sequence[Label]) -> Table:
    with_eval = labels[0].eval_rows is not None
    table = _table("label", "rows", *(["evaluation"] if with_eval else []))
    rows: list[list[str | Text]] = [
        [Text(one.text or "not shown"), f"{one.rows:,}", f"{one.eval_rows or 0:,}"] for one in labels
    ]
    if len(rows) > MOST_LABELS:
        half = MOST_LABELS // 2
        rows[half:-half] = [[Text(f"… {len(rows) - MOST_LABELS} more"), "", ""]]
    for row in rows:
        table.add_row(*row[: 3 if with_eval else 2])
    return table


def _lengths(lengths: Sequence[Histogram]) -> Table:
    names = list(lengths[0].quantiles)
    table = _table(f"in {lengths[0].unit}", *names, "total", "")
    for one in lengths:
        highest = max(one.counts)
        bars = "".join(BLOCKS[-(-8 * count // highest)] for count in one.counts)  # rounded up: what is there is seen
        table.add_row(one.name, *(f"{one.quantiles[name]:,}" for name in names), f"{one.total:,}", bars)
    return table


def _canaries(each: Sequence[dict[str, Any]]) -> Table:
    table = _table("planted secret", "rows", "exposure", "base alone", "said")
    for row in each:
        bits = [f"{row[name]['exposure']:.1f}" for name in ("adapter", "base")]
        table.add_row(str(row["prompt"]), str(row["repeats"]), *bits, "yes" if row["said"] else "no")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number and name else "left", overflow="fold")
    return table
