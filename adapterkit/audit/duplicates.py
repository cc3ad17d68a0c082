"""Rows that say the same, or ask the same and answer otherwise; and held-out rows that are training rows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .findings import Finding, several, severity_of
from .items import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.contracts import Record

    from .items import Item
    from .quoting import Quoting

__all__ = ["conflicts", "exact_duplicates", "exact_overlap"]


def exact_duplicates(items: Sequence[Item], quoting: Quoting) -> list[Finding]:
    """Rows that are the same, turn by turn, as one before them."""
    groups: dict[Record, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.record].append(item)
    same = sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)
    again = sum(len(group) - 1 for group in same)
    if not again:
        return []
    share = again / len(items)
    return [
        Finding(
            name="exact-duplicates",
            severity=severity_of(share, warning=0.01, serious=0.2),
            count=again,
            share=share,
            explanation=(
                f"{several(again, 'row')} exactly like an earlier one: such rows weigh more than others and are memorised first. "
                "Keep one of each, unless the weight is meant."
            ),
            examples=tuple(quoting.rows(group, f"{len(group)} times") for group in same[: quoting.most]),
        )
    ]


def conflicts(items: Sequence[Item], quoting: Quoting, *, label_like: bool) -> list[Finding]:
    """Rows whose prompt another row answers otherwise; a contradiction where answers are labels."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.prompt:
            groups[normalised(item.prompt)].append(item)
    torn = [group for group in groups.values() if len({normalised(item.completion) for item in group}) > 1]
    count = sum(map(len, torn))
    if not count:
        return []
    share = count / len(items)
    advice = (
        "Decide which is right: the model cannot learn both."
        if label_like
        else "Fine where several answers are right; else decide which one is."
    )
    return [
        Finding(
            name="conflicting-completions",
            severity=severity_of(share, warning=0.0, serious=0.05) if label_like else "info",
            count=count,
            share=share,
            explanation=(
                f"{several(count, 'row')} with the prompt of another one, white space and case aside, and another completion. "
                f"{advice}"
            ),
            examples=tuple(quoting.rows(group, _answers(group)) for group in torn[: quoting.most]),
        )
    ]


def exact_overlap(items: Sequence[Item], held_out: Sequence[Item], quoting: Quoting) -> list[Finding]:
    """Held-out rows whose prompt, or raw text, is a training row's."""
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(_asked(item), item)
    seen = [item for item in held_out if _asked(item) in first]
    if not seen:
        return []
    share = len(seen) / len(held_out)
    return [
        Finding(
            name="evaluation-overlap",
            severity=severity_of(share, warning=0.0, serious=0.01),
            count=len(seen),
            share=share,
            explanation=(
                f"{several(len(seen), 'evaluation row')} with the prompt of a training row, white space and case aside: a score on "
                "such rows measures memory. Take them out of one of the two."
            ),
            examples=tuple(quoting.rows([item, first[_asked(item)]]) for item in seen[: quoting.most]),
        )
    ]


def _asked(item: Item) -> str:
    return normalised(item.prompt or item.completion)


def _answers(group: Sequence[Item]) -> str:
    return " / ".join(dict.fromkeys(item.completion for item in group))
