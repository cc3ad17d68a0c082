"""Completions that say nothing, or stop in the middle."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .findings import NEVER, Finding, Shown, several, severity_of
from .items import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.data.dataset import Unusable

    from .items import Item
    from .quoting import Quoting

__all__ = ["cut_off", "placeholders", "unusable_rows"]

PLACEHOLDERS = {
    "-",
    "--",
    "—",
    ".",
    "...",
    "…",
    "?",
    "n/a",
    "na",
    "nan",
    "none",
    "null",
    "nil",
    "todo",
    "tbd",
    "undefined",
    "[]",
    "{}",
}
SENTENCE_WORDS = 8
"""A completion of fewer words may well have no end punctuation."""
FEWEST = 20
"""So many completions are needed to say what is usual."""
USUAL = 0.7
ENDS = tuple(".!?…。！？।؟:;)]}>\"'”’»」』`*_~|")
"""What prose, quotations, lists, code and markup end with."""


def unusable_rows(unusable: Sequence[Unusable], rows: int, quoting: Quoting) -> list[Finding]:
    """Rows that do not have the format, or that the tokenizer cannot use, each with its reason."""
    if not unusable:
        return []
    share = len(unusable) / rows
    reasons = Counter(quoting.reason(one.reason) for one in unusable)
    return [
        Finding(
            name="unusable-rows",
            severity=severity_of(share, warning=0.0, serious=0.01),
            count=len(unusable),
            share=share,
            explanation=f"{several(len(unusable), 'row')} that cannot be trained on: mend them, or take them out.",
            counts=dict(reasons.most_common(10)),
            examples=tuple(Shown((one.where,), "", quoting.reason(one.reason)) for one in unusable[: quoting.most]),
        )
    ]


def placeholders(items: Sequence[Item], quoting: Quoting) -> list[Finding]:
    """Completions that stand for a missing one."""
    hollow = [item for item in items if normalised(item.completion) in PLACEHOLDERS]
    if not hollow:
        return []
    share = len(hollow) / len(items)
    return [
        Finding(
            name="empty-completions",
            severity=severity_of(share, warning=0.0, serious=0.01),
            count=len(hollow),
            share=share,
            explanation=(
                f"{several(len(hollow), 'completion')} as good as empty: the model would learn to say so. Fill them, or take the "
                "rows out."
            ),
            counts=dict(Counter(normalised(item.completion) for item in hollow).most_common(10)),
            examples=quoting.each(hollow, lambda item: f"answers {item.completion.strip()!r}"),
        )
    ]


def cut_off(items: Sequence[Item], quoting: Quoting) -> list[Finding]:
    """Completions of a sentence or more that end without punctuation, where most have it: a guess, and called one."""
    long = [item for item in items if len(item.completion.split(None, SENTENCE_WORDS)) > SENTENCE_WORDS]
    open_ended = [item for item in long if not _ends(item.completion.rstrip())]
    if not open_ended or len(long) < FEWEST or len(open_ended) > (1 - USUAL) * len(long):
        return []
    share, ended = len(open_ended) / len(items), 1 - len(open_ended) / len(long)
    return [
        Finding(
            name="maybe-cut-off",
            severity=severity_of(share, warning=0.05, serious=NEVER),
            count=len(open_ended),
            share=share,
            explanation=(
                f"{several(len(open_ended), 'completion')} without punctuation at the end, which {ended:.0%} of their length have: "
                "they may be cut off, and the model would learn to stop in mid-sentence. This is a guess: look at them."
            ),
            examples=quoting.each(open_ended, lambda item: f"ends with “{item.completion.rstrip()[-40:]}”"),
        )
    ]


def _ends(text: str) -> bool:
    # letters and digits, commas and dashes leave a sentence open; anything else, such as an emoji, may end one
    return text.endswith(ENDS) or not (text[-1].isalnum() or text[-1] in ",-–—(/&+=")
