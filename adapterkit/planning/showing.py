"""A plan as people read it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .calibration import gib
from .devices import PRICES_OF

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .advice import Advice
    from .plan import Estimate, Plan

__all__ = ["as_text", "shown"]

WIDTH = 132


def as_text(plan: Plan) -> str:
    """The same as :func:`shown`, as plain text."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(shown(plan))
    file = console.file
    return file.getvalue().rstrip() if isinstance(file, io.StringIO) else ""


def shown(plan: Plan) -> RenderableType:
    """A table of methods, what the peak consists of, and what to know of it."""
    parts: list[RenderableType] = [Text(_heading(plan), style="bold"), _methods(plan), _memory(plan)]
    parts += [Text(line) for line in _notes(plan)]
    return Group(*parts, *([_advice(plan.advice)] if plan.advice is not None else []))


def _heading(plan: Plan) -> str:
    rows = "rows not counted"
    if plan.rows is not None:
        how = "counted" if plan.rows.counted else "assumed"
        rows = f"{plan.rows.rows:,} rows, {plan.rows.tokens:,} tokens ({how})"
    device = f"{plan.device.name}, {gib(plan.device.memory):.1f} GiB"
    return f"{plan.base}: {plan.parameters / 1e9:.2f} billion parameters on {device}; {rows}"


def _methods(plan: Plan) -> Table:
    table = Table(
        "method", title=f"batches of {plan.batch_size} rows of {plan.length} tokens: estimates", title_justify="left"
    )
    for name in ("trained", "GiB", "fits", "tokens/s", "time", "cost $", "rows fit", "tokens fit"):
        table.add_column(name, justify="right")
    table.add_column("options to pass")
    for one in plan.estimates.values():
        table.add_row(*_method(one))
    return table


def _method(one: Estimate) -> tuple[str, ...]:
    if one.memory is None:
        return (one.method, *[""] * 8, "cannot be planned")
    return (
        one.method,
        f"{one.parameters:,}",
        f"{gib(one.memory.total):.1f}",
        "yes" if one.fits else "no",
        _number(one.tokens_per_second),
        _duration(one.seconds),
        "" if one.cost is None else f"{one.cost:.2f}",
        _number(one.largest_batch),
        _number(one.longest_context),
        "\n".join(f"{name}={value}" for name, value in one.options.items()),
    )


def _memory(plan: Plan) -> Table:
    table = Table("GiB at the peak", title="what the peak consists of", title_justify="left")
    shown = [one for one in plan.estimates.values() if one.memory is not None]
    for one in shown:
        table.add_column(one.method, justify="right")
    stored = dict.fromkeys(name for one in shown if one.memory for name in one.memory.weights)
    for name in stored:
        table.add_row(
            f"weights in {name}", *(f"{gib(one.memory.weights.get(name, 0)):.2f}" for one in shown if one.memory)
        )
    for part in ("adapter", "gradients", "optimizer", "activations", "working", "workspace", "cached", "context"):
        table.add_row(part, *(f"{gib(getattr(one.memory, part)):.2f}" for one in shown))
    return table


def _notes(plan: Plan) -> list[str]:
    notes = [f"{one.method}: {one.reason}." for one in plan.estimates.values() if one.reason]
    if plan.device.is_cpu:
        notes.append(
            "On a CPU, memory is what tensors take; nothing of it was measured. Speed is a guess from a product of matrices."
        )
    else:
        notes.append(
            "Memory was within 4% of what LoRA and QLoRA took on an H100, speed mostly within 20%; on other devices, speed is that "
            "of their data sheets, as far as an H100 came near its own."
        )
    if plan.price is not None and any(one.cost is not None for one in plan.estimates.values()):
        usual = (
            ""
            if plan.price != plan.device.price
            else f" (a list price of {PRICES_OF}; give yours with --price-per-hour)"
        )
        notes.append(f"Cost at ${plan.price:g} an hour{usual}, for the time of training alone.")
    if plan.device.flops is None:
        notes.append("Of a size, nothing but the memory is known: name a device for time and cost.")
    return notes


def _advice(advice: Advice) -> RenderableType:
    table = Table("way", title=f"advice for {advice.goal!r}: rules of thumb, added up", title_justify="left")
    table.add_column("points", justify="right")
    for name in ("for and against", "start with", "what would change it"):
        table.add_column(name, overflow="fold")
    for one in advice.ranking:
        reasons = [f"+ {text}" for text in one.reasons] + [f"- {text}" for text in one.against]
        options = "\n".join(f"{name}={value}" for name, value in one.options.items()) if one.points >= 0 else ""
        table.add_row(
            one.title, "no" if one.points < 0 else str(one.points), "\n".join(reasons), options, "\n".join(one.changes)
        )
    return Group(table, Text(f"{advice.goal}: {advice.why}."))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
