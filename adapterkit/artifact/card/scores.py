"""How well an adapter does, beside its base, and what it has forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.artifact.evaluated import forgetting_of, is_lower_better, results_of
from adapterkit.artifact.markup import number, plain, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from adapterkit.artifact.evaluated import Interval, Result

    from .about import About

__all__ = ["forgetting", "scores", "unknown"]

LITTLE = 0.01
"""A rise of perplexity below it is no loss that anybody would see."""


def scores(about: About) -> Iterator[str]:
    """Blocks of Markdown: a table for each data set."""
    results = results_of(about.part("evaluation"))
    if results:
        yield "## How well it does"
    for one in results:
        yield _told(one)
        yield _table(one)


def forgetting(about: About) -> Iterator[str]:
    """What the adapter has cost elsewhere."""
    found = forgetting_of(about.part("evaluation"))
    if found is None:
        return
    risen = found.perplexity
    how = f"{abs(risen):.1%} {'above' if risen > 0 else 'below'} the base's"
    verdict = (
        "it has lost some of what the base could do" if risen > LITTLE else "nothing was lost that this would show"
    )
    yield "## Forgetting"
    yield (
        f"On {plain(found.name or 'general text')}, which the training was not about, the loss is {number(found.loss)}; the base's "
        f"is {number(found.base)}. The perplexity is {how}: {verdict}."
    )


def unknown(about: About) -> str:
    """What the scores leave open, in a sentence."""
    results = results_of(about.part("evaluation"))
    if not results:
        return "It has not been scored: how well it answers is not known."
    on = " and ".join(_rows(one) for one in results)
    return f"It was scored on {on}; how it does on anything else is not known."


def _rows(result: Result) -> str:
    if result.rows is None:
        return plain(result.name)
    of = f" of {result.of:,}" if result.of is not None and result.of > result.rows else ""
    return f"{result.rows:,}{of} row{'' if (result.of or result.rows) == 1 else 's'} of {plain(result.name)}"


def _told(result: Result) -> str:
    text = f"On {_rows(result)}"
    text += f" (data with the sha256 {plain(result.digest, 12)})" if result.digest else ""
    if result.intervals and result.confidence is not None:
        text += f". In brackets: the {result.confidence:.0%} interval, over samples of rows of the kind"
    return f"{text}."


def _table(result: Result) -> str:
    names = [(name, _named(name)) for name in result.scores]
    if not result.base:
        return table(
            ("score", "with the adapter"),
            [(shown, _shown(name, result.scores, result.intervals)) for name, shown in names],
        )
    return table(
        ("score", "with the adapter", "base alone"),
        [
            (shown, _shown(name, result.scores, result.intervals), _shown(name, result.base, result.base_intervals))
            for name, shown in names
        ],
    )


def _named(score: str) -> str:
    return f"{score} (less is better)" if is_lower_better(score) else score


def _shown(name: str, found: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    if name not in found:
        return ""
    low_high = intervals.get(name)
    return number(found[name]) + (f" [{number(low_high[0])}, {number(low_high[1])}]" if low_high else "")
