"""What went in and what the run was made with, as rows of tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from .numbers import count, moment
from .texts import seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .reading import RunFolder

__all__ = ["Reason", "data_rows", "loading", "notes_on_data", "provenance", "settings", "unusable"]

COUNTS = {
    "rows": "rows",
    "tokens": "tokens",
    "trained_tokens": "trained tokens",
    "truncated_rows": "rows cut to max_length",
    "truncated_tokens": "tokens lost by that",
    "unusable_rows": "rows left out",
}
WARNED = ("truncated_rows", "truncated_tokens", "unusable_rows")
PARTS = {"data": "training", "eval_data": "held out", "replay": "replay"}
PLACES = 5
"""Places that are named for each reason."""
REASONS = 20
LONGEST = 200
"""Characters of a reason, a place or an option's value."""


@attrs.frozen
class Reason:
    """Why rows were left out, how many, and where the first of them are."""

    reason: str
    count: int
    places: tuple[str, ...]


def data_rows(run: RunFolder) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]]:
    """The parts of the data, and for each count its value in each part and whether that is one to look at."""
    parts = {title: getattr(run.run, name) for name, title in PARTS.items()}
    parts = {title: values for title, values in parts.items() if values}
    rows = []
    for name, label in COUNTS.items():
        values = [one.get(name) for one in parts.values()]
        if any(_is_number(value) for value in values):
            cells = (
                (count(value), name in WARNED and value > 0) if _is_number(value) else ("–", False) for value in values
            )
            rows.append((label, tuple(cells)))
    return tuple(parts), tuple(rows)


def notes_on_data(run: RunFolder) -> Iterator[str]:
    """What is missing of the data, and which option gives it."""
    if not run.run.eval_data:
        yield "No rows were held out: give eval_data, or eval_split to hold a part of the data out."
    if not run.run.replay:
        yield "No general rows were mixed in: give replay, if the base's other skills are to stay."
    cut = (run.run.data or {}).get("truncated_rows")
    if _is_number(cut) and cut:
        limit = run.run.options.get("max_length")
        yield f"{count(cut)} training rows were longer than max_length{f'={limit}' if limit else ''} and were cut at the left."


def unusable(run: RunFolder) -> tuple[tuple[Reason, ...], int]:
    """The rows that were left out by reason, the most frequent first, and how many reasons are not shown."""
    reasons: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for row in run.unusable:
        reason = _alike(row.get("reason", "no reason was written"))
        reasons[reason] += 1
        named = places.setdefault(reason, [])
        if len(named) < PLACES:
            named.append(_place(row))
    common = reasons.most_common(REASONS)
    return tuple(Reason(text, times, tuple(places[text])) for text, times in common), len(reasons) - len(common)


def _alike(reason: Any) -> str:
    """A reason without the numbers and quoted words that differ from row to row."""
    return _short(re.sub(r"'[^']*'|\d+", "…", seen(reason)))


def _place(row: Mapping[str, Any]) -> str:
    part = PARTS.get(row.get("data", ""), "") if isinstance(row.get("data"), str) else ""
    return _short(row.get("where", "a row")) + (f" ({part})" if part and part != "training" else "")


def provenance(run: RunFolder) -> Iterator[tuple[str, Any, bool]]:
    """Label, value, and whether it is one to copy letter by letter."""
    told, manifest = run.run, run.manifest or {}
    yield "base", told.base.get("name"), False
    yield "base, commit", told.base.get("revision"), True
    yield "base, fingerprint", told.base.get("fingerprint"), True
    yield "base, quantized in", told.quantize, False
    yield "method", f"{told.method}, of {told.plugin}" if told.plugin else told.method, False
    yield "objective", told.objective, False
    yield "adapter, digest", told.adapter or manifest.get("digest"), True
    for name, title in PARTS.items():
        yield f"{title} rows, digest", (getattr(told, name) or {}).get("digest"), True
    yield "seed", told.options.get("seed"), False
    yield "device", told.device, False
    yield "processes", told.processes if (told.processes or 1) > 1 else None, False
    yield "started", moment(told.started) if told.started else None, False
    yield "ended", moment(told.finished) if told.finished else None, False
    yield "made with", ", ".join(f"{name} {version}" for name, version in told.versions.items()), False


def settings(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Options and their values as Python writes them; long ones are cut."""
    for name, value in values.items():
        yield _short(name), _short(repr(value))


def loading(run: RunFolder) -> str:
    """Three lines of Python that load the adapter again."""
    told = run.run
    arguments = [_literal(told.base.get("name") or "the/base")]
    for name, value in (("revision", told.base.get("revision")), ("quantize", told.quantize)):
        arguments += [f"{name}={_literal(value)}"] if value else []
    return "\n".join(
        (
            "from adapterkit import Base",
            f"base = Base({', '.join(arguments)})",
            f"base.use(base.load({_literal(run.path / 'adapter')}))",
        )
    )


def _literal(value: Any) -> str:
    return json.dumps(seen(str(value)), ensure_ascii=False)


def _short(value: Any) -> str:
    text = seen(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e18
