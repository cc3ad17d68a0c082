"""Keys and values in pages, and which of them a later request may use again.

Pages as in PagedAttention (Kwon et al. 2023, arXiv 2309.06180). A full page is known by a sha256 over the page before it and its
own tokens; the chain begins with the digest of the adapters, so that no page is ever taken for another adapter's.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

__all__ = ["PAGE_SIZE", "KVPool", "KVShape", "Pages"]

PAGE_SIZE = 16
"""Tokens of a page: few enough that a short answer wastes little, many enough that a table of them stays short."""


@attrs.frozen
class KVShape:
    """What the attention of a base keeps of a token.

    Attributes:
        layers: For each layer, the key-value heads, the size of a key and the size of a value.
        dtype: What keys and values are computed in.
    """

    layers: tuple[tuple[int, int, int], ...]
    dtype: torch.dtype

    @property
    def page_bytes(self) -> int:
        """What one page takes, all layers together."""
        return PAGE_SIZE * self.dtype.itemsize * sum(heads * (key + value) for heads, key, value in self.layers)


@attrs.define(eq=False)
class Pages:
    """The pages of one sequence.

    Attributes:
        root: The digest of its adapters, where every key begins.
        table: Page numbers, in order; the page of position p is ``table[p // PAGE_SIZE]``.
        names: The keys of its full pages.
    """

    root: str
    table: list[int] = attrs.field(factory=list)
    names: list[bytes] = attrs.field(factory=list)


class KVPool:
    """All pages of an engine. Used by the engine's thread alone.

    Attributes:
        keys: For each layer, ``(pages, page_size, heads, key_size)``. Page 0 is nobody's, and stays finite.
        values: For each layer, ``(pages, page_size, heads, value_size)``.
    """

    page_size = PAGE_SIZE

    def __init__(self, shape: KVShape, pages: int, device: torch.device, *, reuse: bool = True) -> None:
        if pages < 2:
            raise ConfigError(
                "the engine has no room for keys and values",
                [f"kv_memory: {pages} pages of {shape.page_bytes:,} bytes"],
            )
        self.shape, self.pages, self._reuse = shape, pages, reuse
        # zeros: what is masked is multiplied by zero, and has to be a number for that
        self._wholes = {
            (heads, size): torch.zeros(count, pages, PAGE_SIZE, heads, size, dtype=shape.dtype, device=device)
            for (heads, size), count in Counter(_sizes(shape)).items()
        }
        layers = {key: iter(whole) for key, whole in self._wholes.items()}
        self.keys = [next(layers[heads, key]) for heads, key, _ in shape.layers]
        self.values = [next(layers[heads, value]) for heads, _, value in shape.layers]
        self._free = list(range(pages - 1, 0, -1))
        self._users = [0] * pages
        self._known: dict[bytes, int] = {}
        self._name_of: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Pages that nobody uses and that a later request may: the longest unused first."""

    @property
    def available(self) -> int:
        """Pages that a sequence could have now."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Pages that sequences have."""
        return self.pages - 1 - self.available

    def begin(self, root: str, tokens: Sequence[int]) -> tuple[Pages, int]:
        """The pages of a new sequence, and how many of its tokens are in them already.

        At least one token is left to be computed: its logits are what comes next.
        """
        pages = Pages(root)
        for page_tokens in _full_pages(tokens[: len(tokens) - 1]) if self._reuse else ():
            name = _name(pages.names[-1] if pages.names else None, root, page_tokens)
            page = self._known.get(name)
            if page is None:
                break
            self._idle.pop(page, None)
            self._users[page] += 1
            pages.table.append(page)
            pages.names.append(name)
        return pages, len(pages.table) * PAGE_SIZE

    def extend(self, pages: Pages, length: int) -> bool:
        """Make room for ``length`` tokens; False, and nothing is changed, where there is none."""
        missing = -(-length // PAGE_SIZE) - len(pages.table)
        if missing > self.available:
            return False
        if missing > 0:
            pages.table += self._take(missing)
        return True

    def keep(self, pages: Pages, tokens: Sequence[int]) -> None:
        """Let later sequences use the full pages of ``tokens``, all of whose keys and values are there."""
        if not self._reuse:
            return
        for number in range(len(pages.names), len(tokens) // PAGE_SIZE):
            name = _name(
                pages.names[-1] if pages.names else None,
                pages.root,
                tokens[number * PAGE_SIZE : (number + 1) * PAGE_SIZE],
            )
            pages.names.append(name)
            page = pages.table[number]
            if name not in self._known:  # another sequence may have computed the same meanwhile
                self._known[name], self._name_of[page] = page, name

    def end(self, pages: Pages) -> None:
        """Give the pages back; those that are kept stay until they are needed for others."""
        for page in reversed(pages.table):  # the end of a sequence is of use to fewer than its beginning
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._name_of:
                self._idle[page] = None
            else:
                self._free.append(page)
        pages.table, pages.names = [], []

    def write(self, layer: int, pages: Pages, start: int, keys: Tensor, values: Tensor) -> None:
        """Put keys and values ``(heads, n, size)`` of one sequence at its positions from ``start`` on."""
        slots = torch.tensor(self.slots(pages, start, keys.shape[1]), device=keys.device)
        for whole, new in ((self.keys[layer], keys), (self.values[layer], values)):
            whole.view(-1, *whole.shape[2:])[slots] = new.transpose(0, 1).to(whole.dtype)

    def slots(self, pages: Pages, start: int, count: int) -> list[int]:
        """Where positions of a sequence lie in a layer's keys, seen as ``(pages * page_size, heads, size)``."""
        return [
            pages.table[place // PAGE_SIZE] * PAGE_SIZE + place % PAGE_SIZE for place in range(start, start + count)
        ]

    def forget(self) -> None:
        """Keep nothing for later sequences of what nobody uses now."""
        self._free += self._idle
        self._idle.clear()
        for name in self._known:
            self._name_of.pop(self._known[name], None)
        self._known.clear()

    def _take(self, count: int) -> list[int]:
        taken = []
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            else:
                page, _ = self._idle.popitem(last=False)
                del self._known[self._name_of.pop(page)]
            self._users[page] = 1
            taken.append(page)
        # what stood there may be another adapter's infinity: masked, it would still be zero times infinity
        numbers = torch.tensor(taken, device=self.keys[0].device)
        for whole in self._wholes.values():
            whole.index_fill_(1, numbers, 0)
        return taken


def _sizes(shape: KVShape) -> Iterable[tuple[int, int]]:
    """Heads and size of the keys and of the values of each layer."""
    return (one for heads, key, value in shape.layers for one in ((heads, key), (heads, value)))


def _full_pages(tokens: Sequence[int]) -> Iterable[Sequence[int]]:
    return (tokens[start : start + PAGE_SIZE] for start in range(0, len(tokens) - PAGE_SIZE + 1, PAGE_SIZE))


def _name(before: bytes | None, root: str, tokens: Sequence[int]) -> bytes:
    """The key of a page: everything before it, the adapters and its own tokens."""
    own = b"".join(token.to_bytes(8, "little", signed=True) for token in tokens)
    return hashlib.sha256((before or hashlib.sha256(root.encode()).digest()) + own).digest()
