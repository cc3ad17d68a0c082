"""What an audit finds, as values that become JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from adapterkit.config import to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEVER", "SCHEMA", "Audit", "Finding", "Histogram", "Label", "Severity", "Shown", "several", "severity_of"]

SCHEMA = 1
Severity = Literal["info", "warning", "serious"]
NEVER = 2.0
"""A share that no finding reaches."""


@attrs.frozen
class Shown:
    """An example of a finding.

    Attributes:
        where: The places of its rows, such as ``"train.csv:17"``.
        text: The beginning of the row, with personal data and secrets blacked out; empty where that cannot be done.
        note: What is to be seen in it.
    """

    where: tuple[str, ...]
    text: str = ""
    note: str = ""


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: What kind of thing, such as ``"exact-duplicates"``.
        severity: ``"info"``, ``"warning"``, or ``"serious"``: do not train, or do not publish, before you have looked.
        count: How many rows it is about.
        share: The part of all rows that these are; None where it is not about rows.
        explanation: What it is, and what to do.
        counts: How often each kind of it was found, where there are kinds.
        examples: A few of them.
    """

    name: str
    severity: Severity
    count: int
    explanation: str
    share: float | None = None
    counts: Mapping[str, int] = attrs.field(factory=dict)
    examples: tuple[Shown, ...] = ()


@attrs.frozen
class Label:
    """A completion that many rows share, and how often it stands in training and evaluation rows."""

    text: str
    rows: int
    eval_rows: int | None = None


@attrs.frozen(kw_only=True)
class Histogram:
    """How long texts are.

    Attributes:
        name: Of what.
        unit: ``"tokens"``, or ``"characters"`` where no base is given.
        total: The sum.
        quantiles: ``min``, ``p50``, ``p90``, ``p99``, ``max``.
        edges: The first value of each bin, and the first value after the last one.
        counts: How many are in each bin.
    """

    name: str
    unit: str
    total: int
    quantiles: Mapping[str, int]
    edges: tuple[int, ...]
    counts: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        source: The data that was looked at.
        rows: How many rows it has.
        eval_source: The held-out rows; None when there were none.
        eval_rows: How many these are.
        base: The base whose tokenizer counted tokens; None without one.
        adapter: The digest of the adapter that was tried; None without one.
        options: The options of the audit.
        findings: What was found, the serious things first.
        made: The checks that were made.
        labels: Where completions are few and recur: each, and how often; the commonest first.
        lengths: How long prompts and completions are.
        memorisation: What the adapter was seen to repeat; None when none was given.
        seconds: How long it took.
    """

    source: str
    rows: int
    eval_source: str | None = None
    eval_rows: int | None = None
    base: str | None = None
    adapter: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    findings: tuple[Finding, ...] = ()
    made: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    lengths: tuple[Histogram, ...] = ()
    memorisation: Mapping[str, Any] | None = None
    seconds: float = 0.0

    def __getitem__(self, name: str) -> Finding:
        """The finding of that name.

        Raises:
            KeyError: Nothing of the kind was found.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(finding.name == name for finding in self.findings)

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The serious findings."""
        return tuple(finding for finding in self.findings if finding.severity == "serious")

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; ``schema`` changes when a field changes its meaning."""
        return {"schema": SCHEMA, **to_dict(self)}

    def html(self) -> str:
        """A page that stands alone: it fetches nothing."""
        from .html import audit_page

        return audit_page(self.to_json())


def several(count: int, thing: str) -> str:
    """``"1 row"``, ``"7 rows"``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def severity_of(share: float, *, warning: float, serious: float) -> Severity:
    """What a share of rows amounts to."""
    return "serious" if share >= serious else "warning" if share >= warning else "info"
