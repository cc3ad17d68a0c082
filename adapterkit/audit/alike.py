"""Near duplicates among training rows, and held-out rows that are nearly a training row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .counting import counted
from .findings import NEVER, Finding, Shown, several, severity_of
from .items import normalised
from .near import Alike, drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .items import Item
    from .options import AuditOptions
    from .quoting import Quoting

__all__ = ["near_duplicates"]


def near_duplicates(
    items: Sequence[Item],
    held_out: Sequence[Item],
    options: AuditOptions,
    quoting: Quoting,
    *,
    label_like: bool,
) -> list[Finding]:
    """Rows of ``items`` that are nearly the same, and rows of ``held_out`` that are nearly one of these.

    Where completions are labels, prompts are compared, as a shared label says nothing; else whole rows. What is the same but for
    white space and case is left to the search for exact duplicates.

    Raises:
        MissingLibraryError: datasketch is not installed.
    """

    def text_of(item: Item) -> str:
        return (item.prompt or item.completion) if label_like else item.text

    index = Alike(text_of, options.near_duplicates, options.seed)
    distinct = _distinct(items, text_of)
    looked_at = drawn(list(distinct.values()), options.near_rows, options.seed)
    for item in counted("looking for near duplicates", looked_at):
        index.add(item)
    note = f" Only {len(looked_at):,} of {len(distinct):,} different rows were compared." * (
        len(looked_at) < len(distinct)
    )
    others = [item for text, item in _distinct(held_out, text_of).items() if text not in distinct]
    return _within(index, len(looked_at), options, quoting, note) + _between(
        index, others, len(held_out), quoting, note
    )


def _within(index: Alike[Item], rows: int, options: AuditOptions, quoting: Quoting, note: str) -> list[Finding]:
    found = [group for group in index.groups if group.others]
    if not found:
        return []
    pairs = [(group.first, other) for group in found for other in group.others]
    torn = sum(_differ(*pair) for pair in pairs)
    found.sort(key=lambda group: (-any(_differ(group.first, other) for other in group.others), -len(group.others)))
    share = len(pairs) / rows
    return [
        Finding(
            name="near-duplicates",
            severity=severity_of(share, warning=0.05, serious=NEVER),
            count=len(pairs),
            share=share,
            explanation=(
                f"{several(len(pairs), 'row')} nearly like an earlier one (similarity {options.near_duplicates:g} or more): such "
                f"rows add little and weigh as much as others. Keep one of each, and look at those whose completions differ.{note}"
            ),
            counts={"with another completion": torn, "with the same completion": len(pairs) - torn},
            examples=tuple(_pair(group.first, group.others, quoting) for group in found[: quoting.most]),
        )
    ]


def _between(index: Alike[Item], held_out: Sequence[Item], rows: int, quoting: Quoting, note: str) -> list[Finding]:
    pairs = [
        (item, group.first)
        for item in counted("comparing with evaluation rows", held_out)
        if (group := index.find(item))
    ]
    if not pairs:
        return []
    share = len(pairs) / rows
    return [
        Finding(
            name="near-evaluation-overlap",
            severity=severity_of(share, warning=0.01, serious=0.2),
            count=len(pairs),
            share=share,
            explanation=(
                f"{several(len(pairs), 'evaluation row')} nearly like a training row: a score on such rows flatters. Split by what "
                f"rows have in common (customer, document, template), not at random.{note}"
            ),
            examples=tuple(_pair(item, [other], quoting) for item, other in pairs[: quoting.most]),
        )
    ]


def _distinct(items: Sequence[Item], text_of: Callable[[Item], str]) -> dict[str, Item]:
    """The first row of each text, white space and case aside."""
    found: dict[str, Item] = {}
    for item in items:
        found.setdefault(normalised(text_of(item)), item)
    return found


def _differ(one: Item, other: Item) -> bool:
    return normalised(one.completion) != normalised(other.completion)


def _pair(first: Item, others: Sequence[Item], quoting: Quoting) -> Shown:
    other = next((one for one in others if _differ(first, one)), others[0])
    answers = f" ({first.completion} / {other.completion})" if first.prompt and _differ(first, other) else ""
    return quoting.rows([first, *others], f"{other.prompt or other.completion}{answers}")
