"""All checks in order: those of the text, those that need a tokenizer, and those of an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .alike import near_duplicates
from .completions import cut_off, placeholders, unusable_rows
from .counting import counted
from .duplicates import conflicts, exact_duplicates, exact_overlap
from .findings import Finding
from .labels import are_labels, label_findings
from .lengths import histogram
from .needs import MissingLibraryError, not_checked
from .private import Sightings, personal_data, secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting

    from .canaries import Canary
    from .findings import Histogram, Label
    from .items import Item, Items
    from .options import AuditOptions
    from .private import Guard
    from .quoting import Quoting

__all__ = ["Part", "memory_checks", "text_checks", "token_checks"]


@attrs.define
class Part:
    """What some checks found.

    Attributes:
        findings: All of it.
        made: Which checks these were.
        labels: See :class:`Audit`; so ``lengths`` and ``memorisation``.
    """

    findings: list[Finding] = attrs.field(factory=list)
    made: list[str] = attrs.field(factory=list)
    labels: tuple[Label, ...] = ()
    lengths: tuple[Histogram, ...] = ()
    memorisation: dict[str, Any] | None = None


def text_checks(items: Items, held_out: Items | None, options: AuditOptions, guard: Guard, quoting: Quoting) -> Part:
    """What can be seen without a tokenizer."""
    part, rows = Part(), items.usable
    others = held_out.usable if held_out is not None else ()
    label_like = are_labels(rows)
    part.made += ["exact duplicates", "conflicting completions"]
    part.findings += exact_duplicates(rows, quoting)
    part.findings += conflicts(rows, quoting, label_like=label_like)
    if held_out is not None:
        part.made.append("overlap with evaluation rows")
        part.findings += exact_overlap(rows, others, quoting)
    try:
        part.findings += near_duplicates(rows, others, options, quoting, label_like=label_like)
        part.made.append("near duplicates")
    except MissingLibraryError as error:
        part.findings.append(not_checked("near duplicates", error))
    if label_like:
        part.made.append("label balance")
        found, labels = label_findings(rows, others if held_out is not None else None, quoting)
        part.findings += found
        part.labels = labels.table(quoting)
    else:
        part.made += ["empty completions", "completions that may be cut off"]
        part.findings += placeholders(rows, quoting) + cut_off(rows, quoting)
    _private(part, rows, options, guard)
    part.lengths = _in_characters(rows)
    return part


def token_checks(base: Base, items: Items, options: AuditOptions, quoting: Quoting) -> tuple[Part, list[Any]]:
    """What the tokenizer sees; and the rows that it cannot use."""
    from .encoding import encode

    seen = encode(items.usable, base.tokenizer, options)
    part = Part(
        made=["rows that the tokenizer cannot use", "truncated rows", "missing end tokens", "lengths in tokens"]
    )
    part.findings += seen.findings(len(items), quoting, options.max_length)
    part.lengths = seen.lengths()
    return part, seen.unusable


def memory_checks(
    base: Base,
    adapter: Acting,
    items: Items,
    held_out: Items | None,
    canaries: Sequence[Canary],
    options: AuditOptions,
    quoting: Quoting,
) -> Part:
    """What the adapter repeats."""
    from .exposure import canary_finding, exposures
    from .verbatim import repeats, verbatim

    part = Part(made=["repeated completions"])
    unseen = held_out.usable if held_out is not None else None
    found, repeated = verbatim(base, adapter, items.usable, unseen, options)
    part.findings.append(repeats(found, repeated, quoting))
    exposed = None
    if canaries:
        part.made.append("planted canaries")
        exposed = exposures(base, adapter, canaries, options)
        part.findings.append(canary_finding(exposed))
    part.memorisation = {"verbatim": found, "canaries": exposed}
    return part


def without_base() -> Finding:
    """Says what was left out."""
    return Finding(
        name="not-checked",
        severity="info",
        count=0,
        explanation=(
            "Left out: lengths in tokens, truncated rows, missing end tokens, and rows that a tokenizer cannot use. Name the "
            "base that you will train to have them checked."
        ),
    )


def unusable(items: Items, by_tokenizer: Sequence[Any], quoting: Quoting) -> list[Finding]:
    """Rows that do not have the format, and those that the tokenizer cannot use."""
    return unusable_rows([*items.unusable, *by_tokenizer], len(items), quoting)


def _private(part: Part, rows: Sequence[Item], options: AuditOptions, guard: Guard) -> None:
    finders = [
        (name, finder) for name, finder in (("personal data", guard.personal), ("secrets", guard.secret)) if finder
    ]
    seen = {name: Sightings(finder, options.examples) for name, finder in finders}
    for item in counted("looking for what is private", rows):
        for sightings in seen.values():
            sightings.look(item)
    part.made += list(seen)
    if "personal data" in seen:
        part.findings += personal_data(seen["personal data"], len(rows), options.phone_regions)
    if "secrets" in seen:
        part.findings += secrets(seen["secrets"], len(rows))


def _in_characters(rows: Sequence[Item]) -> tuple[Histogram, ...]:
    prompts, completions = [len(item.prompt) for item in rows], [len(item.completion) for item in rows]
    asked = (histogram("prompt", "characters", prompts),) if any(prompts) else ()
    return (*asked, histogram("completion", "characters", completions))
