"""Completions that recur: whether they are labels, how even they are, and whether evaluation has others."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import attrs

from .findings import Finding, Label, Shown, several
from .items import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .items import Item
    from .quoting import Quoting

__all__ = ["LONGEST_LABEL", "Labels", "are_labels", "label_findings"]

LONGEST_LABEL = 100
MOST_LABELS = 2000
FEW = 10
"""A label of fewer rows is hardly learned."""
UNEVEN = 10
"""The commonest label has so many times the rows of the rarest."""


@attrs.frozen
class Labels:
    """How often each completion stands in training rows, and in evaluation rows where there are any."""

    rows: Counter[str]
    eval_rows: Counter[str] | None

    def table(self, quoting: Quoting) -> tuple[Label, ...]:
        """Each label with its counts, the commonest first."""
        in_order = sorted({**self.rows, **(self.eval_rows or {})}, key=lambda label: (-self.rows[label], label))
        return tuple(
            Label(quoting.text(label), self.rows[label], None if self.eval_rows is None else self.eval_rows[label])
            for label in in_order
        )


def are_labels(items: Sequence[Item]) -> bool:
    """Whether completions are a few short texts that recur: at most a hundred characters each, two rows for each or more."""
    if not items or any(len(item.completion) > LONGEST_LABEL or not item.prompt for item in items):
        return False
    different = len({item.completion.strip() for item in items})
    return different <= MOST_LABELS and 2 * different <= len(items)


def label_findings(
    items: Sequence[Item], held_out: Sequence[Item] | None, quoting: Quoting
) -> tuple[list[Finding], Labels]:
    """What there is to say of labels."""
    rows = Counter(item.completion.strip() for item in items)
    eval_rows = None if held_out is None else Counter(item.completion.strip() for item in held_out)
    findings = [_balance(rows, quoting), *_spellings(rows, quoting)]
    if held_out is not None:
        findings += _never_seen(rows, held_out, quoting)
    return findings, Labels(rows, eval_rows)


def _balance(rows: Counter[str], quoting: Quoting) -> Finding:
    total = rows.total()
    (most, many), (least, few) = rows.most_common(1)[0], min(rows.items(), key=lambda pair: (pair[1], pair[0]))
    entropy = -sum(count / total * math.log(count / total) for count in rows.values())
    evenness = entropy / math.log(len(rows)) if len(rows) > 1 else 0.0
    rare = sum(count < FEW for count in rows.values())
    uneven = rare or many >= UNEVEN * few or len(rows) == 1
    advice = (
        "There is nothing to learn from a single label."
        if len(rows) == 1
        else f"Collect more rows of rare labels, and judge by F1 for each label rather than by accuracy: {many / total:.0%} is "
        "what always answering the commonest one scores."
        if uneven
        else "That is even enough to train on."
    )
    extremes = f"the commonest has {many:,} rows and the rarest {few:,}; evenness {evenness:.2f}, 1 being the same number of each"
    return Finding(
        name="label-balance",
        severity="warning" if uneven else "info",
        count=rare,
        explanation=f"{several(len(rows), 'label')}: {extremes}. {advice}",
        counts={"labels": len(rows), f"labels with fewer than {FEW} rows": rare},
        examples=(
            Shown((), quoting.text(most), f"the commonest: {many:,} rows"),
            Shown((), quoting.text(least), f"the rarest: {few:,} rows"),
        ),
    )


def _spellings(rows: Counter[str], quoting: Quoting) -> list[Finding]:
    """Labels that differ in nothing but case and white space."""
    by_word: dict[str, list[str]] = defaultdict(list)
    for label in rows:
        by_word[normalised(label)].append(label)
    torn = [sorted(labels, key=lambda label: -rows[label]) for labels in by_word.values() if len(labels) > 1]
    count = sum(rows[label] for labels in torn for label in labels[1:])
    if not count:
        return []
    return [
        Finding(
            name="labels-spelled-differently",
            severity="serious",
            count=count,
            share=count / rows.total(),
            explanation=(
                f"{several(len(torn), 'label')} written in more than one way: to the model these are different answers. Write each "
                "in one."
            ),
            examples=tuple(Shown((), quoting.text(" / ".join(map(repr, labels)))) for labels in torn[: quoting.most]),
        )
    ]


def _never_seen(rows: Counter[str], held_out: Sequence[Item], quoting: Quoting) -> list[Finding]:
    unknown: dict[str, list[Item]] = defaultdict(list)
    for item in held_out:
        if item.completion.strip() not in rows:
            unknown[item.completion.strip()].append(item)
    count = sum(map(len, unknown.values()))
    if not count:
        return []
    names = ", ".join(repr(label) for label in list(unknown)[:FEW])
    more = f" and {len(unknown) - FEW} more" * (len(unknown) > FEW)
    shown = f": {quoting.text(names)}{more}" if quoting.black_out else ""
    return [
        Finding(
            name="labels-never-seen",
            severity="serious",
            count=count,
            share=count / len(held_out),
            explanation=(
                f"{several(count, 'evaluation row')} with {several(len(unknown), 'label')} that no training row has{shown}. No "
                "adapter can score on such rows: put such rows into training, or take them out of evaluation."
            ),
            examples=tuple(
                quoting.rows(group, f"expects {label!r}") for label, group in list(unknown.items())[: quoting.most]
            ),
        )
    ]
