"""Says which labels an adapter cannot know, or never gives: a score alone does not tell them from hard ones."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from .asking import asked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adapterkit.contracts import Record

    from .result import Evaluation

__all__ = ["say_never_given", "say_unseen", "unseen_labels"]

logger = logging.getLogger("adapterkit")
MOST_SHOWN = 5
LEAST_ROWS = 3
"""So many rows must expect a label before it is strange that none was answered with it."""


def unseen_labels(trained: Iterable[Record], held_out: Iterable[Record]) -> dict[str, int]:
    """Expected answers of held-out rows that no training row has, with how many rows expect each, where answers are labels.

    They are labels where training rows share them: each is expected twice or more on average.
    """
    known = Counter(one.expected.strip() for one in asked(trained))
    if not known or 2 * len(known) > known.total():
        return {}
    wanted = Counter(one.expected.strip() for one in asked(held_out))
    return {label: rows for label, rows in wanted.most_common() if label not in known}


def say_unseen(trained: Iterable[Record], held_out: Iterable[Record]) -> None:
    """Warn of labels that held-out rows expect and no training row has: they cannot be learned from these rows."""
    found = unseen_labels(trained, held_out)
    if found:
        logger.warning(
            "%d held-out rows expect %d answers that no training row has: %s",
            sum(found.values()),
            len(found),
            _listed(list(found)),
        )


def say_never_given(evaluation: Evaluation) -> None:
    """Warn of labels that rows expect and no row was answered with."""
    classes = evaluation.details.get("f1", {}).get("classes", ())
    never = [one for one in classes if not one["given"] and one["rows"] >= LEAST_ROWS]
    never.sort(key=lambda one: -one["rows"])
    if never:
        logger.warning(
            "%d of %d expected answers were never given: %s (%d rows): were there such rows in training?",
            len(never),
            len(classes),
            _listed([one["label"] for one in never]),
            sum(one["rows"] for one in never),
        )


def _listed(labels: list[str]) -> str:
    more = len(labels) - MOST_SHOWN
    return ", ".join(f"{label!r:.60}" for label in labels[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
