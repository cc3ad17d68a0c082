"""Encoded rows, many of them, in little memory: flat numbers behind what looks like a list of examples."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np

from adapterkit.contracts import Example

from .buffers import Buffer
from .lengths import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Examples", "ExamplesBuilder"]


@attrs.frozen(eq=False)
class _Flat:
    """All rows one after the other: 5 bytes for each token, 28 for each row, and 8 more for each token where rows have weights."""

    ids: Any
    trained: Any
    weights: Any
    ends: Any
    trained_tokens: Any
    truncated: Any
    highest: int

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of all tokens, of which of them are trained, and of what they weigh."""
        total = hashlib.sha256()
        for part in (self.ids, self.trained, self.weights, self.ends):
            total.update(b"" if part is None else np.ascontiguousarray(part).data)
        return total.hexdigest()

    def row(self, number: int) -> Example:
        start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        ids = self.ids[start:end]
        labels = np.where(self.trained[start:end] != 0, ids, IGNORED)
        weights = None if self.weights is None else self.weights[start:end]
        if weights is not None and (weights == 1).all():
            weights = None
        return Example(
            tuple(ids.tolist()),
            tuple(labels.tolist()),
            int(self.truncated[number]),
            None if weights is None else tuple(weights.tolist()),
        )


@attrs.frozen(eq=False, repr=False)
class Examples(Sequence[Example]):
    """Encoded rows in order; each is made when it is asked for.

    Attributes:
        lead: Tokens that go before each row.
    """

    _flat: _Flat
    _rows: Any
    lead: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Examples: ...

    def __getitem__(self, index: int | slice) -> Example | Examples:
        """A row; or a part of them, which shares its numbers with the whole."""
        if isinstance(index, slice):
            return attrs.evolve(self, rows=self._rows[index])
        return self._flat.row(int(self._rows[index])).after(self.lead)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} examples>"

    def pick(self, numbers: Sequence[int] | NDArray[np.int64]) -> Examples:
        """The rows of these numbers, in this order."""
        return attrs.evolve(self, rows=self._rows[np.asarray(numbers, np.int64)])

    def after(self, tokens: Sequence[int]) -> Examples:
        """All rows after ``tokens``, as :meth:`adapterkit.Example.after` has it."""
        return attrs.evolve(self, lead=(*tokens, *self.lead))

    @property
    def lengths(self) -> Sequence[int]:
        """How many tokens each row has."""
        ends = np.asarray(self._flat.ends)
        lengths = np.diff(ends, prepend=0)[self._rows] + len(self.lead)
        return array("q", lengths.astype(np.int64).tobytes())

    @property
    def digest(self) -> str:
        """The sha256 of their tokens and of what is trained, in order; other rows beside them count as well."""
        total = hashlib.sha256(f"{self._flat.digest} {self.lead}".encode())
        total.update(np.ascontiguousarray(self._rows, np.int64).data)
        return total.hexdigest()

    @property
    def trained_tokens(self) -> float:
        """How many tokens count in the loss, by their weights."""
        total = float(np.asarray(self._flat.trained_tokens)[self._rows].sum())
        return total if self._flat.weights is not None else int(total)

    @property
    def truncated(self) -> Sequence[int]:
        """How many tokens each row lost."""
        return array("i", np.asarray(self._flat.truncated)[self._rows].astype(np.int32).tobytes())

    @property
    def highest(self) -> int:
        """The highest token id, or more, when the rows are a part of others."""
        return max((self._flat.highest, *self.lead))


class ExamplesBuilder:
    """Takes examples one by one."""

    def __init__(self) -> None:
        self._ids, self._trained, self._weights = Buffer("i"), Buffer("B"), Buffer("d")
        self._ends, self._trained_tokens, self._truncated = Buffer("q"), Buffer("d"), Buffer("i")
        self._weighted = False
        self._highest = 0

    def __len__(self) -> int:
        return len(self._ends)

    def extend(self, examples: Iterable[Example]) -> None:
        """Add examples."""
        for one in examples:
            if one.weights is not None and not self._weighted:
                self._weighted = True
                _fill(self._weights, len(self._ids))
            self._ids.extend(one.input_ids)
            self._trained.extend([label != IGNORED for label in one.labels])
            if self._weighted:
                self._weights.extend(one.weights or [1.0] * len(one.input_ids))
            self._ends.extend((len(self._ids),))
            self._trained_tokens.extend((one.trained,))
            self._truncated.extend((one.truncated,))
            self._highest = max(self._highest, *one.input_ids)

    def finish(self) -> Examples:
        """All of them; nothing may be added after this."""
        flat = _Flat(
            self._ids.finish(),
            self._trained.finish(),
            self._weights.finish() if self._weighted else None,
            self._ends.finish(),
            self._trained_tokens.finish(),
            self._truncated.finish(),
            self._highest,
        )
        return Examples(flat, np.arange(len(flat.ends)))


def _fill(buffer: Buffer, count: int, at_once: int = 2**20) -> None:
    for start in range(0, count, at_once):
        buffer.extend([1.0] * min(at_once, count - start))
