"""Texts that are nearly the same: MinHash sketches in an LSH index (Broder 1997; Leskovec, Rajaraman, Ullman, chapter 3).

The index proposes, and the exact Jaccard similarity decides, so nothing is called alike that is not. What the index overlooks
is little: at the default threshold about 13 in 100 pairs of similarity 0.80, and 1 in 1,000 of 0.90. A text is compared with the
first of each group of like texts, not with all of them, so that a million rows from one template cost no more than others.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from .needs import need

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Alike", "Group", "drawn", "jaccard", "shingles"]

T = TypeVar("T")

RUN = 5
"""Letters in a shingle: long enough to hold more than a word's ending, short enough for a question of six words."""
PERMUTATIONS = 128
RECALL = (0.1, 0.9)
"""False positives are found out, so that false negatives may weigh nine times as much."""
HIGHEST = 0.95
"""An index for a higher threshold would overlook much; what it proposes is compared exactly anyhow."""
MOST_TRIED = 64
"""So many proposals are looked at for one text."""
_BETWEEN = re.compile(r"[\W_]+")


@attrs.frozen
class Group(Generic[T]):
    """Rows whose texts are like that of the first."""

    first: T
    others: list[T] = attrs.field(factory=list)


class Alike(Generic[T]):
    """Rows in groups by what their texts share.

    Args:
        text_of: The text of a row.
        threshold: The least Jaccard similarity of shingles.
        seed: Of the sketches.

    Raises:
        MissingLibraryError: datasketch is not installed.
    """

    def __init__(self, text_of: Callable[[T], str], threshold: float, seed: int) -> None:
        sketches = need("datasketch")
        self._text_of, self._threshold = text_of, threshold
        self._index = sketches.MinHashLSH(threshold=min(threshold, HIGHEST), num_perm=PERMUTATIONS, weights=RECALL)
        self._blank = sketches.MinHash(num_perm=PERMUTATIONS, seed=seed % 2**32, hashfunc=_as_it_is)
        self.groups: list[Group[T]] = []

    def find(self, row: T) -> Group[T] | None:
        """The group whose first row is most like this one; None where none is alike, or the text has no letters."""
        mine = shingles(self._text_of(row))
        return self._best(mine, self._sketch(mine)) if mine.size else None

    def add(self, row: T) -> None:
        """Put a row into the group that it is like, or make it the first of a new one."""
        mine = shingles(self._text_of(row))
        if not mine.size:
            return
        sketch = self._sketch(mine)
        found = self._best(mine, sketch)
        if found:
            found.others.append(row)
            return
        self._index.insert(len(self.groups), sketch, check_duplication=False)
        self.groups.append(Group(row))

    def _sketch(self, mine: NDArray[np.uint32]) -> Any:
        sketch = self._blank.copy()
        sketch.update_batch(mine)
        return sketch

    def _best(self, mine: NDArray[np.uint32], sketch: Any) -> Group[T] | None:
        proposed = sorted(self._index.query(sketch))[:MOST_TRIED]
        rated = [(jaccard(mine, shingles(self._text_of(self.groups[number].first))), -number) for number in proposed]
        best = max(rated, default=None)
        return self.groups[-best[1]] if best and best[0] >= self._threshold else None


def drawn(rows: Sequence[T], most: int, seed: int) -> Sequence[T]:
    """At most so many of ``rows``, in their order."""
    if len(rows) <= most:
        return rows
    stream = random.Random(seed)  # noqa: S311 - not a secret
    return [rows[index] for index in sorted(stream.sample(range(len(rows)), most))]


def shingles(text: str) -> NDArray[np.uint32]:
    """The hashes of all runs of five letters, each once and sorted: case, punctuation and white space aside."""
    import numpy as np

    letters = _BETWEEN.sub(" ", text.casefold()).strip()
    if not letters:
        return np.empty(0, np.uint32)
    points = np.frombuffer(f" {letters} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(points) < RUN:
        points = np.pad(points, (0, RUN - len(points)))
    powers = np.array([pow(1_000_003, place, 2**64) for place in range(RUN)], dtype=np.uint64)
    hashes = (np.lib.stride_tricks.sliding_window_view(points, RUN) * powers).sum(1, dtype=np.uint64)
    return np.unique((hashes >> np.uint64(17)).astype(np.uint32))


def jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """How much two sets share: the size of what both have over the size of what either has."""
    import numpy as np

    both = len(np.intersect1d(left, right, assume_unique=True))
    return both / (len(left) + len(right) - both)


def _as_it_is(value: Any) -> Any:
    return value
